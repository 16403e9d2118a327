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
    MLP          4 N D M              for each dense block, and K times for each MoE layer
    router       2 N D E              for each MoE layer
    pooling      4 (N + 1) D^2 + 4 N D + 4 D M    only with classifier "map": one query, and an MLP for one token
    head         2 D C, or 2 R (D + C) behind a layer of width R

Either factor of a product has a gradient, and each gradient is a product of the same size. So training takes three
times the forward pass. The exception is the embedding, which takes twice, since the pixels need no gradient.
"""

from vmoe_inform.config import VisionModelConfig


def forward_flops_per_image(config: VisionModelConfig, *, kept: float = 1.0, k: int | None = None) -> float:
    """Operations of one image in the forward pass.

    Args:
      config: of the model.
      kept: share of the choices that found a slot.
      k: experts of each token; by default ``num_selected_experts``, also where K still grows.
    """
    tokens, width, hidden, moe = config.num_tokens, config.hidden_size, config.mlp_size, config.moe
    k = moe.num_selected_experts if k is None else k
    attention = 8 * tokens * width**2 + 4 * tokens**2 * width
    mlp = 4 * tokens * width * hidden
    num_moe = len(config.moe_layers)
    dense = config.num_layers * attention + (config.num_layers - num_moe) * mlp
    sparse = num_moe * (k * kept * mlp + 2 * tokens * width * moe.num_experts)
    pooling = 0
    if config.classifier == "map":
        pooling = 4 * (tokens + 1) * width**2 + 4 * tokens * width + 4 * width * hidden
    features, classes = config.representation_size, config.num_classes
    head = 2 * width * classes if features is None else 2 * features * (width + classes)
    return float(_embedding_flops(config) + dense + sparse + pooling + head)


def training_flops_per_image(config: VisionModelConfig, *, kept: float = 1.0, k: int | None = None) -> float:
    """Operations of one image in a training step, forward and backward; args as :func:`forward_flops_per_image`."""
    return 3 * forward_flops_per_image(config, kept=kept, k=k) - _embedding_flops(config)


def _embedding_flops(config: VisionModelConfig) -> int:
    patches = (config.image_size_px // config.patch_size_px) ** 2
    return 2 * patches * config.layer_sizes.raw_input_size * config.hidden_size
