"""A sheet in each format, as text or bytes.

``rendering`` is the one place that knows them all. ``plain`` has the formats of the command line,
``markdown``, ``latex`` and ``html`` those of papers and pages, ``parquet`` the exact one.
"""
