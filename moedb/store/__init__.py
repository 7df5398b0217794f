"""Bytes on disk: write, commit, snapshot, connect."""
