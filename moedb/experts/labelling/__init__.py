"""Labels of experts, written by a language model that reads contexts, and what they are worth.

``running`` does it: ``drawing`` chooses contexts, ``prompts`` says what is asked and reads what is
answered, ``asking`` sends it and keeps every answer, ``scoring`` counts, ``rows`` are stored.
"""
