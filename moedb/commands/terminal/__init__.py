"""What reaches the user: rows on stdout, everything else on stderr, and the exit code.

``messages`` says things, ``emitting`` prints rows and writes them to files, through a ``pager``
where a table is longer than the screen, ``completion`` and ``question_help`` answer before a
command runs, and ``guard`` turns what goes wrong into text and an exit code.
"""
