"""Changes of a complete run, each by a next head: compaction, and additions."""
