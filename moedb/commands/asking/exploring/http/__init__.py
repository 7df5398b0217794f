"""The server: who may ask, what is answered under which address, and what is told of failures."""
