"""Estimates and how sure they are: intervals, what chance gives, and cells that do not tell."""
