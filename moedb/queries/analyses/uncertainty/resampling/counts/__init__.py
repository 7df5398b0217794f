"""What clusters of examples add to what a named query reads."""
