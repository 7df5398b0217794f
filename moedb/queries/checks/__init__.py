"""Whether a question can be asked of its runs, and why an answer has no rows.

A question with its values comes in; an error or a sentence goes out. Only manifests, labels,
examples and conditions are read for it, never decisions.
"""
