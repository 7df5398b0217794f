"""Tokens that an expert's output promotes: how they are read off, as a question."""
