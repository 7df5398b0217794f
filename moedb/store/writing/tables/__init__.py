"""The files of tables: written in the order of the format, with no more bits than are known."""
