"""The forms of files that labels are read from: one module for each, and the ``registry``."""
