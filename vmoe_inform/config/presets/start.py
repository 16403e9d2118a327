"""The start of every config file: the defaults, and the presets that the string after its name selects."""

from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from vmoe_inform import checks
from vmoe_inform import config as config_lib
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
    sizes.set_experts(config, chosen["experts"], chosen["where"] or routers.find_router(name).where or where)
    routers.set_router(config, name)
    if k is not None:
        routers.set_top(config, name, k)
    for field, value in options.items():
        step, option = field.split(".")
        config.model.router.options[step][option] = value
    if recipes:
        if chosen["recipe"] not in recipes:
            raise checks.error("recipe", f"one of {', '.join(recipes)}", chosen["recipe"])
        recipes[chosen["recipe"]](config)
    routers.set_options(config, router)
    return config
