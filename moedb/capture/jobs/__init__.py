"""The kinds of capture, a folder each, whose door is ``job``.

Options of a command come in; a plan of examples with their labels, targets and conditions goes
out. ``language`` is what all captures of language models share, ``model_outline`` what they share
with interventions, ``tasks`` what an intervention asks of a job. A new job is a folder here and a
command; no other folder has to be read for it.
"""
