"""Prompts of the indirect object identification task (IOI) of Wang et al. 2022.

A prompt names two people and then one of them again: "..., Anna met Paul outside the cafe, so
Anna lent a scarf to" is continued by " Paul". The indirect object (IO) is the answer, the subject
(S) is the name that stands twice. A file of templates holds the sentences in their BABA form, in
which S comes first; the ABBA form swaps the first mention of the two names. Tokenizers are known
here by their call interface alone, and no tensor library is imported.
"""

from moedb.capture.ioi.drawing import ORDERS, Order, PairFilter, Span, is_held_out_pair
from moedb.capture.ioi.prompts import (
    IOIPrompt,
    IOIPrompts,
    Role,
    corrupted_twin,
    generate_prompts,
    single_token_names,
    token_roles,
)
from moedb.capture.ioi.sentences import IOISentence, SentenceStream, training_sentences
from moedb.capture.ioi.templates import SLOTS, IOITemplates, load_ioi_templates

__all__ = [
    "ORDERS",
    "SLOTS",
    "IOIPrompt",
    "IOIPrompts",
    "IOISentence",
    "IOITemplates",
    "Order",
    "PairFilter",
    "Role",
    "SentenceStream",
    "Span",
    "corrupted_twin",
    "generate_prompts",
    "is_held_out_pair",
    "load_ioi_templates",
    "single_token_names",
    "token_roles",
    "training_sentences",
]
