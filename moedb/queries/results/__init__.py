"""A result: its rows, where they come from, and every way to print or write them.

``result`` carries rows and provenance; ``values``, ``cells`` and ``sheets`` lay them out,
``formats`` renders, ``export`` and ``files`` write a table and its sidecar, whole or not at
all. A format can be added in ``formats`` without reading a query.
"""
