"""Tokens around the decisions of an expert: which are chosen, how they are read, as a question."""
