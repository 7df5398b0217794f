"""Runs whose routing was made up so that what is asked of them is known."""
