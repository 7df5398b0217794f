"""A captured run's examples again, through a model that is changed on the way.

``choices`` reads what is asked for, ``kinds`` says what each intervention is, ``parent_run`` what
the captured run has to give; ``planning`` turns them into conditions, ``engine`` and
``layer_edits`` change a pass, ``running`` goes through them. A kind can be added in ``kinds`` and
``layer_edits`` alone.
"""
