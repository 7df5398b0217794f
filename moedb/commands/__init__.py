"""The command line, a file for each subject.

Arguments come in from click; rows go out on stdout and everything else on stderr, both through
``terminal``, which also owns the exit codes. ``options`` has the options that commands share;
``api`` is what commands do as functions for scripts and notebooks, and the bars of both. Commands
call ``capture`` or ``queries`` and hold no logic of their own; what costs time to import is
imported inside them, so that ``--help`` stays quick. A command can be added or changed here without
reading another.
"""
