"""Texts of any origin, read as a stream and cut into examples that need not fit into memory."""
