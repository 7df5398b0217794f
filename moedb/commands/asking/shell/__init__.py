"""`moedb shell`: one statement after the other over a store that stays open.

``command`` starts the ``loop``; ``prompt`` asks on a terminal, with a ``history``; ``statements``
finds where one ends, ``session`` asks it, ``dot_commands`` does what is no SQL. ``completion`` says
what may come next, of the ``names`` that there are.
"""
