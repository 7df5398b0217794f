"""Figures of single experts of each layer: how often each is used, how evenly, how few."""
