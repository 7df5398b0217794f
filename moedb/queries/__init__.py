"""Asking a store: named analyses, SQL, tables and figures."""
