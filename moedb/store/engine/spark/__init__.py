"""Spark over a snapshot: the same SQL, tables and views, on one machine or a cluster.

``dialect`` turns DuckDB's SQL into Spark's, ``session`` starts or reaches Spark, ``tables`` has the
rows of the store, ``engine`` runs statements. A snapshot and SQL come in, Arrow tables go out. Only
``session``, ``tables`` and ``engine`` import pyspark, where they use it.
"""
