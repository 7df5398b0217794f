"""Bytes on disk.

Rows and arrays come in from ``capture`` unit by unit and are committed by a manifest
(``writing``); readers get a snapshot of what is committed (``reading``), a connection with a view
for each table (``engine``), and open ``arrays``. Nothing here knows a model or a question, and
nothing that a store holds is trusted (``containment``, ``arrays``). Who changes the order
of what is written has to read ``writing`` and ``reading`` together, and the tests that stop a
writer at every step.
"""
