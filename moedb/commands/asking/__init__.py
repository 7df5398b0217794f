"""Asking a store: queries, SQL, and what is published of their answers."""
