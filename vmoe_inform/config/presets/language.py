"""The language model of the papers' programs."""

import ml_collections


def set_papers_trunk(config: ml_collections.ConfigDict) -> None:
    """Sets ``config.model`` to blocks and attention as the papers' programs have them, with sequences as they are.

    These are the Adaptive-Span transformer (arXiv 1905.07799) with a fixed span of two sequences. Attention is to the
    tokens before, with memory of earlier sequences. LayerNorms follow the branches, experts have ReLU, and dropout is
    0.1 in attention and experts.
    """
    model = config.model
    model.block = "post_ln_double"
    model.activation = "relu"
    model.attention_style = "previous"
    model.attention_span = 2 * model.num_tokens
    model.attention_dropout_rate = 0.1
    model.moe.expert_dropout_rate = 0.1
