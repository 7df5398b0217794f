"""Reading a snapshot: rows by SQL, arrays by row, and where both are from.

``reader`` is what analyses are typed on. ``read_only`` refuses SQL that writes, ``sources`` finds
out which runs and splits a statement reads, ``references`` names them, ``run_contents`` says what
a run has to ask about. ``memo`` keeps what is dear to compute of a complete run.
"""
