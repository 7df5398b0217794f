"""What a training run of qwen-moe-mini, or of one of its dense twins, is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

WIDTHS = ("active", "total")
"""The widths of the dense twins: of what a token meets of the mixture, and of all of it."""


class MiniTrainingConfig(BaseModel):
    """Shape, data and optimizer of a training run. Frozen, and stored with the model.

    The shape has the topology of Qwen1.5-MoE-A2.7B: every layer a mixture of 60 routed experts,
    the top 4 with their softmax weights as they are, and one shared expert behind a sigmoid gate.

    Attributes
    ----------
    vocab_size, n_layers, d_model, n_heads, n_experts, top_k, d_expert, d_shared : int
        The shape.
    d_dense : int, optional
        Width of the one feed-forward layer that every layer of a dense twin has in place of router
        and experts; None for the mixture. The settings of experts then mean nothing.
    tie_embeddings : bool
        Whether the unembedding is the embedding.
    init_std, expert_down_init_std : float
        Standard deviation of the first weights; the experts' down projections start larger, as a
        softmax weight of 1/60 stands before their outputs.
    max_length : int
        Tokens of the longest piece of a document.
    held_out_fraction : float
        Share of the documents, and of the pairs of names, that are never trained on.
    steps : int
        Number of optimizer steps.
    corpus_tokens_per_step : int
        Size of a corpus batch, padding included.
    ioi_rows_per_step : int
        IOI sentences beside each corpus batch.
    ioi_coefficient, ioi_answer_weight : float
        Factor of the IOI loss, and the weight of the answer among the tokens of a sentence.
    aux_coefficient : float
        Factor of the load balancing loss.
    learning_rate, final_learning_rate, warmup_steps, weight_decay, beta1, beta2, grad_clip
        AdamW with a linear warmup, a cosine down to the final rate and gradient clipping.
    autocast : bool
        Compute in bf16. Off by default: processors without bf16 instructions are slower with it.
    seed : int
        Seed of the weights, the order of the corpus and the IOI sentences.
    log_every, evaluate_every, checkpoint_every : int
        Steps between log lines, quick evaluations and checkpoints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(4096, ge=300)
    n_layers: int = Field(6, ge=1)
    d_model: int = Field(128, ge=8)
    n_heads: int = Field(4, ge=1)
    n_experts: int = Field(60, ge=2)
    top_k: int = Field(4, ge=1)
    d_expert: int = Field(32, ge=1)
    d_shared: int = Field(128, ge=1)
    d_dense: int | None = Field(None, ge=1)
    tie_embeddings: bool = True
    init_std: float = Field(0.05, gt=0)
    expert_down_init_std: float = Field(0.2, gt=0)

    max_length: int = Field(256, ge=8)
    held_out_fraction: float = Field(0.05, gt=0, lt=1)
    held_out_pair_fraction: float = Field(0.1, gt=0, lt=1)

    steps: int = Field(3600, ge=1)
    corpus_tokens_per_step: int = Field(1280, ge=8)
    ioi_rows_per_step: int = Field(28, ge=1)
    ioi_coefficient: float = Field(1.0, ge=0)
    ioi_answer_weight: float = Field(10.0, gt=0)
    aux_coefficient: float = Field(0.01, ge=0)

    learning_rate: float = Field(2e-3, gt=0)
    final_learning_rate: float = Field(1e-4, ge=0)
    warmup_steps: int = Field(150, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.98, ge=0, lt=1)
    grad_clip: float = Field(1.0, gt=0)
    autocast: bool = False

    seed: int = 0
    log_every: int = Field(50, ge=1)
    evaluate_every: int = Field(300, ge=1)
    checkpoint_every: int = Field(100, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> MiniTrainingConfig:
        if self.top_k > self.n_experts:
            raise ValueError(f"top_k is {self.top_k}, with {self.n_experts} experts")
        if self.d_model % (2 * self.n_heads):
            raise ValueError(
                f"d_model is {self.d_model}, not a multiple of 2 x {self.n_heads} heads"
            )
        for key in ("d_model", "d_expert", "d_shared", "d_dense"):
            if (getattr(self, key) or 0) % 8:
                raise ValueError(f"{key} is {getattr(self, key)}, not a multiple of 8")
        if self.corpus_tokens_per_step < self.max_length:
            raise ValueError(
                f"corpus_tokens_per_step is {self.corpus_tokens_per_step}, less than a piece "
                f"of {self.max_length} tokens"
            )
        return self

    @property
    def model_name(self) -> str:
        """What a model of this configuration is called on its card."""
        if self.d_dense is None:
            return "qwen-moe-mini"
        for width in WIDTHS:
            if self.d_dense == twin_width(self, width):
                return f"qwen-dense-mini-{width}"
        return f"qwen-dense-mini-{self.d_dense}"

    def model_shape(self) -> dict[str, Any]:
        """Return the arguments of the model's configuration, token ids left out.

        That is a `Qwen2MoeConfig`, and a `Qwen2Config` for a dense twin.
        """
        shape = {
            "vocab_size": self.vocab_size,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_heads,
            "max_position_embeddings": 4 * self.max_length,
            "tie_word_embeddings": self.tie_embeddings,
            "initializer_range": self.init_std,
        }
        if self.d_dense is not None:
            return {**shape, "intermediate_size": self.d_dense}
        return {
            **shape,
            "intermediate_size": self.d_shared,
            "moe_intermediate_size": self.d_expert,
            "shared_expert_intermediate_size": self.d_shared,
            "num_experts": self.n_experts,
            "num_experts_per_tok": self.top_k,
            "norm_topk_prob": False,
            "decoder_sparse_step": 1,
            "router_aux_loss_coef": self.aux_coefficient,
        }


def twin_width(config: MiniTrainingConfig, width: str) -> int:
    """Return the width of a dense twin's feed-forward layers.

    Parameters
    ----------
    config : MiniTrainingConfig
        The mixture.
    width : str
        ``active``: as many neurons as a token meets in a layer of the mixture. ``total``: as many
        as a layer of the mixture has.
    """
    n_experts = config.top_k if width == "active" else config.n_experts
    return n_experts * config.d_expert + config.d_shared
