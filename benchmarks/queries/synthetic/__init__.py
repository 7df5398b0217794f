"""The stores that are asked, and how they are written.

``stores`` writes them: ``run`` of documents or prompts as ``settings`` say, with words from
``vocabulary`` and what ``routers`` say of them, and ``trials``.
"""
