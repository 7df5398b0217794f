"""What a named query gives for one side less what it gives for another."""
