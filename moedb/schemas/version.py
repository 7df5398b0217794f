"""The version of moedb, for what records it and for the build."""

__version__ = "0.1.0"
