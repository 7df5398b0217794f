"""Figures of results, a file for each family, drawn with the parts in ``parts``.

A result comes in; a matplotlib figure goes out, and with ``drawing`` a file and its sidecar.
``registry`` says which question has which figure.
"""
