"""What can be asked by a name: the SQL files with their headers, as queries and as macros.

Files of ``moedb/sql/queries`` come in; a catalogue of questions with parameters and columns goes
out. Nothing here reads a store.
"""
