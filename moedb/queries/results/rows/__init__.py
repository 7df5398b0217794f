"""Rows: given ones as a result, which of a result's are asked for, and one after the other."""
