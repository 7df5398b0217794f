"""Figures and tables on one subject at once, with a page that puts them in order."""
