"""Running models and recording what they do. The only part of moedb that imports torch."""

import os

# Memory in large pages, where the system gives them when asked: it takes far fewer of them, each of
# which is cleared when it is first touched. PyTorch looks at this once, at its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
