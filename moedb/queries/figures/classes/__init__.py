"""Figures about classes: one heat map each (``matrices``), and those side by side (``panels``)."""
