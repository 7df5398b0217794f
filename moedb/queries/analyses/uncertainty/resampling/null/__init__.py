"""What chance gives of what a named query tells."""
