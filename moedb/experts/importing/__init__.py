"""Labels of experts that others made and published, read from their files and added to a run.

``formats`` knows the kinds of files, one module for each: ``own``, ``herbst``, ``delphi``,
``neuronpedia``. They give what ``found`` describes; ``placing`` finds layers, experts and tokens of
the run for it, and ``adding`` adds it. Files may come from anyone (``files``).
"""
