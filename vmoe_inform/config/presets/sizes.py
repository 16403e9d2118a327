"""Sizes of models by name, and the number and places of their experts."""

import re

import ml_collections

from vmoe_inform import checks

# num_layers, hidden_size, mlp_size, num_heads (V-MoE, arXiv 2106.05974, Table 1; Ti is for tests and small images)
SIZES = {
    "Ti": (4, 64, 128, 4),
    "S": (8, 512, 2048, 8),
    "B": (12, 768, 3072, 12),
    "L": (24, 1024, 4096, 16),
    "H": (32, 1280, 5120, 16),
}

# num_layers, hidden_size, mlp_size, num_heads, num_tokens. Medium and large are Mutual-Inform SMoE's (Appendix C.1),
# whose experts are as wide as the model; the others are for tests and small corpora.
LANGUAGE_SIZES = {
    "tiny": (2, 32, 64, 2, 32),
    "small": (4, 128, 128, 4, 64),
    "medium": (6, 352, 352, 8, 512),
    "large": (12, 512, 512, 8, 1024),
}


def set_variant(config: ml_collections.ConfigDict, variant: str) -> None:
    """Sets the sizes of ``config.model`` from e.g. ``"S/32"``: size S, patches of 32 px.

    As in V-MoE, a tanh layer of the hidden size precedes the head.

    Raises:
      ValueError: not of the form SIZE/PATCH.
    """
    match = re.fullmatch(rf"({'|'.join(SIZES)})/([1-9]\d{{0,8}})", variant)
    if match is None:
        raise checks.error("variant", f"SIZE/PATCH with SIZE one of {', '.join(SIZES)}", variant)
    model = config.model
    model.num_layers, model.hidden_size, model.mlp_size, model.num_heads = SIZES[match[1]]
    model.representation_size = model.hidden_size
    model.patch_size_px = int(match[2])


def set_language_size(config: ml_collections.ConfigDict, size: str) -> None:
    """Sets the sizes of a language model, and the tokens of a sequence, from a name such as ``"medium"``.

    Raises:
      ValueError: an unknown name.
    """
    if size not in LANGUAGE_SIZES:
        raise checks.unknown("size", f"one of {', '.join(LANGUAGE_SIZES)}", size, LANGUAGE_SIZES)
    model = config.model
    model.num_layers, model.hidden_size, model.mlp_size, model.num_heads, model.num_tokens = LANGUAGE_SIZES[size]


def set_experts(config: ml_collections.ConfigDict, experts: str, where: str) -> None:
    """Sets the number of experts and the MoE layers: ``where`` is last2, every2, ... or indices as in ``5+7``.

    Raises:
      ValueError: ``experts`` is no number >= 1, or ``where`` is of another form.
    """
    config.model.moe.num_experts = number("experts", experts)
    if re.fullmatch(r"(last|every)[1-9]\d{0,8}|none", where):
        config.model.moe.layers = where
    elif re.fullmatch(r"\d{1,9}(\+\d{1,9})*", where):
        config.model.moe.layers = tuple(int(index) for index in where.split("+"))
    else:
        raise checks.error("where", "lastN, everyN, none or block indices such as 5+7", where)


def number(key: str, text: str) -> int:
    """The number that a key of a config file's argument gives.

    Raises:
      ValueError: it is no number >= 1.
    """
    if re.fullmatch(r"[1-9]\d{0,8}", text) is None:
        raise checks.error(key, "a number >= 1", text)
    return int(text)
