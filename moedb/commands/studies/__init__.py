"""Studies: the steps of a whole piece of work, from captures to tables, in one file.

``study_file`` reads and checks one, ``command_lines`` has the commands of its steps, ``journal``
what was done already, ``running`` does the rest, ``rehearsal`` says beforehand how long that will
take, ``pages`` sets tables into prose. A step is a line that could be typed; nothing here knows
what a command does.
"""
