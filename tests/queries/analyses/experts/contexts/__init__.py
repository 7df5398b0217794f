"""Contexts of experts."""
