"""Tokens that experts promote."""
