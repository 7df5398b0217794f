"""Figures of experts two by two, of one layer or of neighbouring layers, as matrices."""
