"""Asking a reader over the network: an endpoint, a journal of answers, what may be spent."""
