"""Prompts of indirect object identification, drawn from templates, each with a corrupted twin."""

from moedb.capture.jobs.qwen_ioi.drawing import ORDERS, Order, PairFilter, Span, is_held_out_pair
from moedb.capture.jobs.qwen_ioi.prompts import (
    IOIPrompt,
    IOIPrompts,
    Role,
    corrupted_twin,
    generate_prompts,
    single_token_names,
    token_roles,
)
from moedb.capture.jobs.qwen_ioi.sentences import IOISentence, SentenceStream
from moedb.capture.jobs.qwen_ioi.templates import SLOTS, IOITemplates, load_ioi_templates

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
]
