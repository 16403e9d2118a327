"""Named settings that config files share: routers by the papers' names, model sizes, places of MoE layers."""

import re
from collections.abc import Callable

import ml_collections

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.registry import Registry

Preset = Callable[[ml_collections.ConfigDict], None]
ROUTERS: Registry[Preset] = Registry("router preset")

# num_layers, hidden_size, mlp_size, num_heads (V-MoE, arXiv 2106.05974, Table 1; Ti is for tests and small images)
SIZES = {
    "Ti": (4, 64, 128, 4),
    "S": (8, 512, 2048, 8),
    "B": (12, 768, 3072, 12),
    "L": (24, 1024, 4096, 16),
    "H": (32, 1280, 5120, 16),
}


@ROUTERS.register("vmoe")
def _vmoe(router: ml_collections.ConfigDict) -> None:
    """V-MoE (Riquelme 2021): linear scores with noise 1/E, top K not renormalised, importance and load losses."""
    router.score = "linear"
    router.inform = "none"
    router.select = "top_experts"
    router.noise_std = 1.0
    router.options.linear.bias = False
    router.options.top_experts.renormalize = False
    router.losses.importance = 0.005
    router.losses.load = 0.005


@ROUTERS.register("similarity_vmoe")
def _similarity_vmoe(router: ml_collections.ConfigDict) -> None:
    """V-MoE whose tokens inform each other by similarity (003, Definition 1; dot, identity weight, temperature 1)."""
    _vmoe(router)
    router.inform = "similarity"
    router.options.top_experts.renormalize = True


@ROUTERS.register("attention_vmoe")
def _attention_vmoe(router: ml_collections.ConfigDict) -> None:
    """V-MoE whose tokens inform each other by the attention posterior (003, Definition 2; sigma 1)."""
    _vmoe(router)
    router.inform = "attention"
    router.options.top_experts.renormalize = True


@ROUTERS.register("symphony_vmoe")
def _symphony_vmoe(router: ml_collections.ConfigDict) -> None:
    """V-MoE whose experts inform each other by co-selection (000, SymphonySMoE; decay 0.9)."""
    _vmoe(router)
    router.inform = "symphony"
    router.options.top_experts.renormalize = True


def set_router(config: ml_collections.ConfigDict, name: str) -> None:
    """Sets ``config.model.router`` to a preset.

    Raises:
      ValueError: unknown name; lists the known ones.
    """
    ROUTERS[name](config.model.router)


def set_variant(config: ml_collections.ConfigDict, variant: str) -> None:
    """Sets the sizes of ``config.model`` from e.g. ``"S/32"``: size S, patches of 32 px.

    As in V-MoE, a tanh layer of the hidden size precedes the head.

    Raises:
      ValueError: not of the form SIZE/PATCH.
    """
    match = re.fullmatch(rf"({'|'.join(SIZES)})/([1-9]\d*)", variant)
    if match is None:
        raise checks.error("variant", f"SIZE/PATCH with SIZE one of {', '.join(SIZES)}", variant)
    model = config.model
    model.num_layers, model.hidden_size, model.mlp_size, model.num_heads = SIZES[match[1]]
    model.representation_size = model.hidden_size
    model.patch_size_px = int(match[2])


def set_experts(config: ml_collections.ConfigDict, experts: str, where: str) -> None:
    """Sets the number of experts and the MoE layers: ``where`` is last2, every2, ... or indices as in ``5+7``.

    Raises:
      ValueError: ``experts`` is no number >= 1, or ``where`` is of another form.
    """
    if re.fullmatch(r"[1-9]\d*", experts) is None:
        raise checks.error("experts", "a number >= 1", experts)
    config.model.moe.num_experts = int(experts)
    if re.fullmatch(r"(last|every)[1-9]\d*|none", where):
        config.model.moe.layers = where
    elif re.fullmatch(r"\d+(\+\d+)*", where):
        config.model.moe.layers = tuple(int(index) for index in where.split("+"))
    else:
        raise checks.error("where", "lastN, everyN, none or block indices such as 5+7", where)


def start(argument: str | None, *, router: str, variant: str, experts: str, where: str) -> ml_collections.ConfigDict:
    """What every config file begins with: the defaults, and the presets that the string after its name picks.

    Args:
      argument: comma list of ``key=value`` with the keys below, or None.
      router, variant, experts, where: what holds where the argument says nothing.

    Raises:
      ValueError: an unknown key or value.
    """
    chosen = config_lib.parse_argument(argument, router=router, variant=variant, experts=experts, where=where)
    config = config_lib.default()
    set_variant(config, chosen["variant"])
    set_experts(config, chosen["experts"], chosen["where"])
    set_router(config, chosen["router"])
    return config
