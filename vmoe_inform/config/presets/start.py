"""The start of every config file: the defaults, and the presets that the string after its name selects."""

from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from vmoe_inform import checks, storage
from vmoe_inform import config as config_lib
from vmoe_inform.config import files
from vmoe_inform.config.presets import routers, sizes

Recipes = Mapping[str, Callable[[ml_collections.ConfigDict], None]]
_NOTHING: Mapping[str, Any] = {}


def start(
    argument: str | None,
    *,
    router: str,
    variant: str,
    experts: str,
    where: str,
    recipes: Recipes | None = None,
    options: Mapping[str, Any] = _NOTHING,
) -> ml_collections.ConfigDict:
    """The start of a config file of images.

    ``router=help`` prints the presets and ends the program.

    Args:
      argument: comma list of ``key=value`` with the keys below, or None.
      router, variant, experts, where: defaults of the argument's keys. A router with its own positions of MoE layers
        overrides ``where``.
      recipes: ways to train by the file's names for them, with the key ``recipe``; the first is the default. The
        chosen one edits the config after all else but what the argument says of the router's options.
      options: of router steps by ``STEP.OPTION``, such as a length in steps of this run. They override the presets',
        and the argument's override them.

    Raises:
      ValueError: an unknown key or value.
    """
    chosen = _chosen(argument, recipes, router=router, variant=variant, experts=experts, where="")
    config = config_lib.default()
    sizes.set_variant(config, chosen["variant"])
    return _finished(config, chosen, where, recipes, options)


def start_language(
    argument: str | None,
    *,
    router: str,
    size: str,
    experts: str,
    where: str = "every1",
    recipes: Recipes | None = None,
    options: Mapping[str, Any] = _NOTHING,
) -> ml_collections.ConfigDict:
    """The start of a config file of text.

    Args:
      argument: as of :func:`start`. The key ``top`` is the number of experts of each token, K; by default that of the
        router.
      router, experts, where: defaults of the argument's keys, as of :func:`start`.
      size: name of a size, see :data:`LANGUAGE_SIZES`.
      recipes, options: as of :func:`start`.

    Raises:
      ValueError: an unknown key or value, or a router that has another K in its name.
    """
    chosen = _chosen(argument, recipes, router="", size=size, top="", experts=experts, where="")
    k = sizes.number("top", chosen["top"]) if chosen["top"] else None
    if not chosen["router"]:
        chosen["router"] = router if k is None else routers.with_top(router, k)
    config = config_lib.default("tokens")
    sizes.set_language_size(config, chosen["size"])
    return _finished(config, chosen, where, recipes, options, k)


def start_from_run(
    argument: str | None,
    *,
    router: str = "",
    experts: str = "",
    where: str = "",
    inputs: tuple[str, ...] = ("images", "tokens"),
    recipes: Recipes | None = None,
) -> ml_collections.ConfigDict:
    """The start of a config file that continues from another run: all settings of that run.

    The run is ``train.initial_checkpoint``. Names of classes are left out: those of the data count.

    Args:
      argument: as of :func:`start`. The key ``from`` is the folder of the run. Without defaults for them, there are no
        keys ``experts`` and ``where``.
      router, where: defaults of the argument's keys for a dense run. The router and the MoE layers of others stay.
      experts: default of its key.
      inputs: of runs that the file is for.
      recipes: as of :func:`start`.

    Raises:
      ValueError: an unknown key or value, no run in the folder, or one on other inputs.
    """
    of_experts = {"experts": experts, "where": ""} if experts else {}
    chosen = _chosen(argument, recipes, router="", **{"from": ""}, **of_experts)
    config = _settings_of_run(chosen["from"])
    if config.model.inputs not in inputs:
        raise checks.error("from", f"a run with model.inputs = {' or '.join(map(repr, inputs))}", config.model.inputs)
    layers = config.model.moe.layers
    if layers == "none":
        chosen["router"] = chosen["router"] or router
    elif experts and not chosen["where"]:
        chosen["where"] = layers if isinstance(layers, str) else "+".join(map(str, layers))
    return _finished(config, chosen, where, recipes, _NOTHING)


def _settings_of_run(folder: str) -> ml_collections.ConfigDict:
    if not folder:
        raise checks.error("config argument", "from=RUN, the folder of the run to begin from", checks.NOTHING)
    path = storage.path("from", folder) / "config.json"
    if not storage.inputs.is_file(path):
        raise checks.error("from", "the folder of a run, with config.json", folder)
    config = files.load(str(path))
    config.data.class_names = ()
    config.train.initial_checkpoint = str(path.parent)
    config.train.upcycling_noise = 0.0
    return config


def _chosen(argument: str | None, recipes: Recipes | None, **defaults: str) -> dict[str, str]:
    """What the argument says of each key."""
    recipe = {"recipe": next(iter(recipes))} if recipes else {}
    chosen = config_lib.parse_argument(argument, **defaults, **recipe)
    if chosen["router"] == "help":
        print(routers.describe_routers())
        raise SystemExit(0)
    return chosen


def _finished(
    config: ml_collections.ConfigDict,
    chosen: Mapping[str, str],
    where: str,
    recipes: Recipes | None,
    options: Mapping[str, Any],
    k: int | None = None,
) -> ml_collections.ConfigDict:
    """The config with experts, router and recipe; what the argument says of the router's options comes last."""
    router = chosen["router"]
    name = router.partition("@")[0]
    if "experts" in chosen:
        _set_experts(config, chosen, routers.find_router(name) if name else None, where)
    if name:
        routers.set_router(config, name)
    if k is not None:
        routers.set_top(config, name, k)
    for field, value in options.items():
        step, option = field.split(".")
        config.model.router.options[step][option] = value
    if recipes:
        if chosen["recipe"] not in recipes:
            raise checks.unknown("recipe", f"one of {', '.join(recipes)}", chosen["recipe"], recipes)
        recipes[chosen["recipe"]](config)
    if name:
        routers.set_options(config, router)
    return config


def _set_experts(
    config: ml_collections.ConfigDict, chosen: Mapping[str, str], preset: routers.Preset | None, where: str
) -> None:
    """The MoE layers where the argument says, else where the router has its own, else where the file has them."""
    experts, said = chosen["experts"], chosen["where"]
    sizes.set_experts(config, experts, said or (preset.where if preset else None) or where)
    if not said and preset is not None and preset.needs_previous:
        model = config.model
        if len(config_lib.resolve_layers(model.moe.layers, model.num_layers)) == 1:
            sizes.set_experts(config, experts, "last2")
