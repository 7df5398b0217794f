"""The decisions of a run as matrices of layers, tokens and ranks, in the order of its files."""
