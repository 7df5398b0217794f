"""Asking a reader over the network: an endpoint, a journal of its answers, and what may be spent."""
