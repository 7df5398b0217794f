"""Overviews: what a store and a run hold, and figures and tables on one subject with their page."""
