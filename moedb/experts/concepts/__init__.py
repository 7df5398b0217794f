"""Concepts as rules: labels of tokens that follow from a run's texts, without the model.

A file of rules goes in, an addition with rows of ``token_labels`` comes out.
"""
