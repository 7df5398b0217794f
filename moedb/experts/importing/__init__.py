"""Labels of experts that others made and published, read from their files and added to a run.

``forms`` has a module for each form of files. They give what ``found`` describes; ``placing`` finds
layers, experts and tokens of the run for it, and ``adding`` adds it. Files may come from anyone
(``files``).
"""
