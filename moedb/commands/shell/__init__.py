"""`moedb shell`: one statement after the other over a store that stays open.

``command`` starts it, ``prompt`` asks on a terminal, ``statements`` finds where one ends, ``session``
runs them, ``dot_commands`` does what is no SQL. ``completion`` says what may come next, of the
``names`` that there are.
"""
