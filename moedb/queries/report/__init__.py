"""Reports: figures and tables on one subject with their page."""
