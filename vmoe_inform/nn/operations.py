"""Operations that training takes by the model's definition, for the utilisation of the chips (MFU)."""

from vmoe_inform.config import ModelConfig


def training_flops_per_image(config: ModelConfig) -> float:
    """Floating-point operations of one image in a training step: forward pass, and twice that for the gradients.

    It counts the matrix products of the Transformer (arXiv 2204.02311, Appendix B), two operations for a product of two
    numbers. These are patch embedding, attention, MLPs, K experts of each token, pooling and head. It does not count
    routing, moving tokens, empty slots, rematerialisation and element-wise work. So two routers of equal MFU train
    equally fast, and the cost of a router lowers it. Dropped tokens count in full. Where K grows, it is
    ``num_selected_experts``.
    """
    width, hidden, num_tokens = config.hidden_size, config.mlp_size, config.num_tokens
    patches = (config.image_size_px // config.patch_size_px) ** 2
    embedding = 2 * patches * (3 * config.patch_size_px**2) * width
    projections = 4 * (2 * num_tokens * width**2)  # query, key, value, output
    attention = 2 * (2 * num_tokens**2 * width)  # query . key, weights . value
    mlp = 2 * (2 * num_tokens * width * hidden)
    num_mlps = config.num_layers + len(config.moe_layers) * (config.moe.num_selected_experts - 1)
    head_width = width if config.representation_size is None else config.representation_size
    head = 2 * head_width * config.num_classes + (0 if config.representation_size is None else 2 * width * head_width)
    pooling = 0
    if config.classifier == "map":  # attention of a single query, then an MLP for the one token that it gives
        pooling = 2 * (2 + 2 * num_tokens) * width**2 + 4 * num_tokens * width + 2 * (2 * width * hidden)
    forward = embedding + config.num_layers * (projections + attention) + num_mlps * mlp + pooling + head
    return 3.0 * forward
