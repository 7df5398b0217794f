"""Single experts taken out of single examples, and what that does to the tokens that follow.

``opening`` finds the model of a run and holds it against the run, ``untouched`` says what it does
as it is, ``measuring`` what an ablation changes. What is asked and told is in
:mod:`moedb.schemas.interventions`; who asks, and why, is not known here.
"""
