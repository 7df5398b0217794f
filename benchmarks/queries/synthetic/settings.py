"""What a synthetic run is made from."""

from dataclasses import asdict, dataclass

from moedb.store.files import sha256_of_json

TEMPLATES = tuple(f"{order}-{number}" for order in ("ABBA", "BABA") for number in range(8))
DOMAINS = ("books", "code", "encyclopedia", "law", "medicine", "news", "science", "web")
KINDS = {"text": DOMAINS, "qwen-ioi": TEMPLATES}
"""Of each job the values of the label of its examples."""

UNIT_TOKENS = 8192
LONGEST = 2 * UNIT_TOKENS // 3
"""Mean tokens of a document at most: one of half as many again still goes into a unit."""


@dataclass(frozen=True)
class Settings:
    """What a synthetic run is made from; the same settings give the same rows.

    Attributes
    ----------
    job
        ``text`` for documents, ``qwen-ioi`` for prompts, every second one the corrupted twin of
        the one before.
    tokens
        Tokens of the run, about: examples are whole.
    example_tokens
        Tokens of a prompt; of documents the mean, they have from half to one and a half times it.
    layers, experts, top_k
        The model's shape.
    checkpoint
        Which checkpoint of the model: 0 is the last. Others see the same text, and their routers
        agree with it only in part.
    seed
        The seed.
    """

    job: str
    tokens: int
    example_tokens: int
    layers: int = 24
    experts: int = 60
    top_k: int = 4
    checkpoint: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.top_k < self.experts:
            raise ValueError(
                f"top k {self.top_k} of {self.experts} experts: expected 1 or more, "
                "and fewer than there are experts"
            )
        if self.layers < 2:
            raise ValueError(f"{self.layers} layers: expected 2 or more")
        if not 2 <= self.example_tokens <= LONGEST:
            raise ValueError(f"examples of {self.example_tokens} tokens: expected 2 to {LONGEST}")

    @property
    def run_id(self) -> str:
        """The job and a hash of the settings."""
        return f"{self.job}-{sha256_of_json(asdict(self))[:10]}"

    @property
    def is_prompts(self) -> bool:
        """Whether the examples are prompts in pairs, clean and corrupted."""
        return self.job == "qwen-ioi"
