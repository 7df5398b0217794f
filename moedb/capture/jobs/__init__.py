"""The kinds of capture: each turns its settings into a dataset."""
