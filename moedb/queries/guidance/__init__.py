"""What helps who asks: what there is to ask, of which run, whether it can be, what to know of it.

``overview`` and ``schema`` list runs, questions, tables, views, macros and arrays. A question with
its values comes in: ``default_run`` finds the run that answers, ``parameter_values`` raises where
it cannot, ``empty_results`` says why an answer has no rows, ``cautions`` what its rows need said.
Only manifests, labels, examples and conditions are read for it, never decisions.
"""
