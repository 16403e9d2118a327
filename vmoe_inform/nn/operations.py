"""The one count of a model's operations: for utilisation (MFU), the benchmark and studies.

It counts the matrix products of the model's definition (arXiv 2204.02311, Appendix B). A multiplication and an addition
are two operations. The products are patch embedding, attention, MLPs, the K experts of each token, a linear router,
pooling and head. It does not count work that another implementation may avoid: empty slots, moving tokens, one-hot
products, rematerialisation, all elementwise work, and the optimizer.

Every router counts as a linear one, D -> E for each token. So the same model has the same operations with any router,
and a costly router lowers the utilisation.

With N tokens of width D, H heads, MLPs of width M, E experts and L blocks, the forward pass of one image takes::

    embedding    2 (N - 1) P D        P numbers in a patch; N - 1 patches, N of them without a class token
    attention    L (8 N D^2 + 4 N^2 D)    query, key, value and output; query . key and weights . value
    MLP          4 N D M              for each dense block, and K times for each MoE layer, more with shared experts
    router       2 N D E              for each MoE layer
    pooling      4 (N + 1) D^2 + 4 N D + 4 D M    only with classifier "map": one query, and an MLP for one token
    head         2 D C, or 2 R (D + C) behind a layer of width R

A sequence of text takes, with a vocabulary of V words or C classes::

    embedding    0                    it is looked up
    attention    L (8 N D^2 + 4 N^2 D)    a causal mask counts for nothing, as in the source
                 L (4 N D^2 + 4 (N + A) D^2 + 6 N A D)    to the A tokens before: keys and values of the memory too, and
                                      query . relative key
    head         2 N D V, or 2 D C of a classifier

Either factor of a product has a gradient, and each gradient is a product of the same size. So training takes three
times the forward pass. There are two exceptions. The embedding of images takes twice, since the pixels need no
gradient. So do the keys and values of the memory, which gets none.
"""

from vmoe_inform.config import LanguageModelConfig, ModelConfig, VisionModelConfig


def forward_flops_per_sequence(config: ModelConfig, *, kept: float = 1.0, k: int | None = None) -> float:
    """Operations of one sequence, such as an image, in the forward pass.

    Args:
      config: of the model.
      kept: share of the choices that found a slot.
      k: experts of each token; by default ``num_selected_experts``, also where K still grows.
    """
    tokens, width, hidden, moe = config.num_tokens, config.hidden_size, config.mlp_size, config.moe
    k = moe.num_selected_experts if k is None else k
    mlp = 4 * tokens * width * hidden
    num_moe = len(config.moe_layers)
    dense = config.num_layers * _attention_flops(config) + (config.num_layers - num_moe) * mlp
    sparse = num_moe * ((k * kept + moe.shared_experts) * mlp + 2 * tokens * width * moe.num_experts)
    return float(_without_gradient(config) + dense + sparse + _head_flops(config))


def training_flops_per_sequence(config: ModelConfig, *, kept: float = 1.0, k: int | None = None) -> float:
    """Operations of a sequence in a training step, both passes; args as :func:`forward_flops_per_sequence`."""
    return 3 * forward_flops_per_sequence(config, kept=kept, k=k) - _without_gradient(config)


def _attention_flops(config: ModelConfig) -> int:
    """Of one block, without the memory's keys and values."""
    tokens, width = config.num_tokens, config.hidden_size
    span = config.attention_span
    between = 4 * tokens**2 * width if span is None else 6 * tokens * span * width
    return 8 * tokens * width**2 + between


def _without_gradient(config: ModelConfig) -> int:
    """Products one of whose factors needs no gradient: pixels, or the memory."""
    if isinstance(config, VisionModelConfig):
        patches = (config.image_size_px // config.patch_size_px) ** 2
        return 2 * patches * config.layer_sizes.raw_input_size * config.hidden_size
    return config.num_layers * 4 * (config.attention_span or 0) * config.hidden_size**2


def _head_flops(config: ModelConfig) -> int:
    """Of pooling and head."""
    tokens, width = config.num_tokens, config.hidden_size
    if isinstance(config, LanguageModelConfig):
        classes = config.num_classes
        return 2 * tokens * width * config.vocabulary_size if classes is None else 2 * width * classes
    assert isinstance(config, VisionModelConfig)  # there are no others
    pooling = 0
    if config.classifier == "map":
        pooling = 4 * (tokens + 1) * width**2 + 4 * tokens * width + 4 * width * config.mlp_size
    features, classes = config.representation_size, config.num_classes
    return pooling + (2 * width * classes if features is None else 2 * features * (width + classes))
