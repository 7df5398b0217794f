"""Texts of the user's own.

Rows come in from ``sources``; ``documents`` takes texts and labels out of them, ``tokenization``
and ``windows`` cut them into examples, ``alignment`` carries labels of words over to tokens,
``spool`` keeps what has been read so far. Examples go out.
"""
