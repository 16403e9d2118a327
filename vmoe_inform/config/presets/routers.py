"""Routers by the names of the papers."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, get_type_hints

import ml_collections

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.config import from_text
from vmoe_inform.registry import Registry
from vmoe_inform.routing import steps

Model: TypeAlias = ml_collections.ConfigDict  # ``config.model``
_MOE = "moe"
_LITERAL = "_literal"
_TOP = re.compile(rf"smoe_top([1-9]\d{{0,8}})(?=(?:{_LITERAL})?$)")  # a family, of which two are registered


@dataclasses.dataclass(frozen=True)
class Preset:
    """A router by the name of its paper.

    Attributes:
      summary: one line on it.
      apply: sets ``config.model``: all of its router, and K.
      where: places of the MoE layers where the system has its own; None: those of the config file.
      needs_previous: a step takes the MoE layer before its own, so that a single MoE layer is too few.
    """

    summary: str
    apply: Callable[[Model], None]
    where: str | None = None
    needs_previous: bool = False


ROUTERS: Registry[Preset] = Registry("router preset")


def _register(name: str, *, where: str | None = None) -> Callable[[Callable[[Model], None]], Callable[[Model], None]]:
    """Registers a function as a preset; its docstring is the summary."""

    def decorate(apply: Callable[[Model], None]) -> Callable[[Model], None]:
        ROUTERS.add(name, Preset((apply.__doc__ or "").strip(), apply, where))
        return apply

    return decorate


def _plain(model: Model, score: str, k: int = 2) -> None:
    """Tokens choose the top K of these scores; no noise and no auxiliary loss."""
    # All else as by default: nothing is left of a preset before.
    model.router = config_lib.default(model.inputs).model.router
    router = model.router
    router.score, router.select = score, "top_experts"
    router.noise_std = 0.0
    router.losses = ()
    model.moe.num_selected_experts = k


@_register("vmoe")
def _vmoe(model: Model) -> None:
    """V-MoE (Riquelme 2021): linear with noise 1/E, top K not renormalised, importance and load loss"""
    _plain(model, "linear")
    model.router.noise_std = 1.0
    model.router.options.top_experts.renormalize = "informed"
    model.router.losses = ("importance", "load")


@_register("smoe_top1")
def _smoe_top1(model: Model) -> None:
    """SMoE (Switch, as in Mutual-Inform SMoE): linear with bias, top 1, no balance loss"""
    _smoe(model, 1)


@_register("smoe_top2")
def _smoe_top2(model: Model) -> None:
    """SMoE (as in Mutual-Inform SMoE): linear with bias, top 2 renormalised, no balance loss; smoe_topK for any K"""
    _smoe(model, 2)


def _smoe(model: Model, k: int) -> None:
    _plain(model, "linear", k=k)
    model.router.options.linear.bias = True


@_register("glam", where="every2")
def _glam(model: Model) -> None:
    """GLaM (Du 2022): linear, top 2 renormalised, GShard's loss, a MoE layer in every second block"""
    _plain(model, "linear", k=2)
    model.router.losses = ("gshard",)


@_register("xmoe")
def _xmoe(model: Model) -> None:
    """X-MoE (Chi 2022): cosine to expert embeddings in a low dimension, learned temperature, Switch's loss"""
    _plain(model, "cosine")
    model.router.losses = ("switch",)


@_register("smoe_dropout")
def _smoe_dropout(model: Model) -> None:
    """SMoE-dropout (Chen 2023): a random router that is never trained; K grows from 1 over the training"""
    _plain(model, "frozen")
    model.router.options.frozen.k_start = 1


@_register("stablemoe")
def _stablemoe(model: Model) -> None:
    """StableMoE (Dai 2022): learn where tokens go, distil it into a light router, freeze that; top 1, sigmoid gate"""
    _plain(model, "distilled", k=1)
    model.router.losses = ("balance",)


@_register("hash")
def _hash(model: Model) -> None:
    """Hash layer (Roller 2021): a fixed random table from a patch's position to its expert"""
    _plain(model, "hash", k=1)


@_register("base")
def _base(model: Model) -> None:
    """BASE layer (Lewis 2021): linear, balanced assignment in training, top 1 in evaluation, sigmoid gate"""
    _plain(model, "linear", k=1)
    model.router.select = "balanced_assignment"


@_register("expert_choice")
def _expert_choice(model: Model) -> None:
    """Expert choice (Zhou 2022): linear; every expert takes the tokens of the group that want it most"""
    _plain(model, "linear")
    model.router.select = "expert_choice"


@_register("soft")
def _soft(model: Model) -> None:
    """Soft MoE (Puigcerver 2023): slots that are mixtures of all tokens of an image; nothing is chosen or dropped"""
    _plain(model, "soft_slots")
    model.router.select = "soft"


@_register("loss_free")
def _loss_free(model: Model) -> None:
    """Loss-free balancing (Wang 2024, as in DeepSeek-V3): sigmoid scores, top 2 of the biased, no balance loss"""
    _plain(model, "sigmoid")
    model.router.select = "biased_top_experts"


@_register("remoe")
def _remoe(model: Model) -> None:
    """ReMoE (Wang 2024): ReLU scores, every positive expert, 2 on average by an L1 loss of adaptive weight"""
    _plain(model, "relu")
    model.router.select = "positive_experts"


@_register("alternate_vmoe", where="last2")
def _alternate_vmoe(model: Model) -> None:
    """V-MoE informed by attention in one MoE layer and by similarity in the next (Mutual-Inform SMoE)"""
    _vmoe(model)
    model.router.inform_by_layer = ("attention", "similarity")


def _preset(name: str) -> Preset:
    """A registered preset, or one of the family ``smoe_topK``."""
    if name in ROUTERS or _TOP.fullmatch(name) is None:
        return ROUTERS[name]
    k = int(name.removeprefix("smoe_top"))
    return Preset(f"SMoE: linear with bias, top {k} renormalised, no balance loss", lambda model: _smoe(model, k))


def _product(chosen: Sequence[steps.Step], base: str) -> Preset:
    """A preset with these steps in place of its own, or those losses too, and without what they do not go with."""
    preset = _preset(base)
    informing = [step for step in chosen if isinstance(step, steps.InformStep)]

    def apply(model: Model) -> None:
        preset.apply(model)
        router = model.router
        if informing:
            names = tuple(step.name for step in informing)
            router.inform = names if names[1:] else names[0]
        for step in chosen:
            if isinstance(step, steps.ScoreStep):
                router.score = step.name
                if not step.takes_noise:
                    router.noise_std = 0.0
                    router.losses = tuple(name for name in router.losses if not steps.LOSS_STEPS[name].needs_noise)
                if step.selects is not None and router.select not in step.selects:
                    router.select = step.selects[0]
            elif isinstance(step, steps.SelectStep):
                router.select = step.name
                if step.scores is not None and router.score not in step.scores:
                    router.score = step.scores[0]
            elif not isinstance(step, steps.InformStep):
                router.losses = (*(name for name in router.losses if name != step.name), step.name)

    needs_previous = any(step.skips_first_layer for step in informing) or any(
        isinstance(step, steps.ScoreStep) and step.needs_previous for step in chosen
    )
    described = ", then ".join(f"{step.name}: {_summary(step)}" for step in chosen)
    return Preset(f"{base} with {described}", apply, preset.where, needs_previous)


def _literal(name: str) -> Preset:
    """The router of this name with the options of its inform steps as their papers print them."""
    preset = find_router(name)

    def apply(model: Model) -> None:
        preset.apply(model)
        informing = [step for step in _steps_of(model.router) if isinstance(step, steps.InformStep) and step.literal]
        if not informing:
            known = ", ".join(step.name for step in _with_literal_forms())
            raise checks.error("router", f"{_LITERAL} behind a router with one of the steps {known}", name + _LITERAL)
        for step in informing:
            model.router.options[step.name].update(step.literal)

    return dataclasses.replace(preset, summary=f"{preset.summary}, as its paper prints it", apply=apply)


def _steps_of(router: ml_collections.ConfigDict) -> list[steps.Step]:
    """The chosen steps of ``config.model.router``."""
    chosen = (router.score, router.inform, router.inform_by_layer, router.select)
    return [steps.all_steps()[name] for name in config_lib.RouterConfig(*chosen, losses=router.losses).step_names]


def _summary(step: steps.Step) -> str:
    return step.summary.replace("``", "").removesuffix(".")


def find_router(name: str) -> Preset:
    """A preset, or for ``STEP_PRESET`` the preset with a registered step, as in ``symphony_glam``.

    ``STEP+STEP_PRESET`` is the preset with several steps; those that inform are applied in their order. ``smoe_topK``
    is a preset for any K. ``NAME_literal`` has the options of its inform steps that their papers print.

    Raises:
      ValueError: unknown name, or one that is both.
    """
    if name.endswith(_LITERAL):
        return _literal(name.removesuffix(_LITERAL))
    of_family = _TOP.findall(name)
    bases = dict.fromkeys([*ROUTERS, *(f"smoe_top{k}" for k in of_family)])
    products = [(name.removesuffix(f"_{base}").split("+"), base) for base in bases if name.endswith(f"_{base}")]
    known = steps.all_steps()
    found = [
        _product([known[step] for step in chosen], base)
        for chosen, base in products
        if all(step in known for step in chosen) and len(set(chosen)) == len(chosen)
    ]
    if name in bases:
        if found:
            raise checks.error("router", f"a name of its own for each: {name} is a preset", found[0].summary)
        return _preset(name)
    if not found:
        expected = f"one of {', '.join(ROUTERS)}, or STEP_NAME with one of the steps {', '.join(known)}"
        raise checks.unknown("router preset", expected, name, [*ROUTERS, *(f"{step}_vmoe" for step in known)])
    return found[0]


def describe_routers() -> str:
    """The presets, and what each registered step makes of vmoe, one line each."""
    products = {f"{name}_vmoe": _summary(step) for name, step in steps.all_steps().items()}
    width = max(map(len, [*ROUTERS, *products]))
    return "\n".join(
        [
            "router=NAME is one of",
            *(f"  {name:<{width}}  {ROUTERS[name].summary}" for name in ROUTERS),
            "router=STEP_NAME is that router with a registered step (STEP+STEP_NAME with several), as in",
            *(f"  {name:<{width}}  {summary}" for name, summary in products.items()),
            "router=NAME@STEP.OPTION=VALUE@... sets options of its steps, as in xmoe@cosine.temperature=0.1,",
            "and router=NAME@moe.FIELD=VALUE settings of model.moe, as in vmoe@moe.capacity_factor=2;",
            "router=NAME_literal has the options that the papers print:",
            *(f"  {step.name:<{width}}  {_printed(step)}" for step in _with_literal_forms()),
        ]
    )


def _with_literal_forms() -> list[steps.InformStep]:
    return [steps.INFORM_STEPS[name] for name in steps.INFORM_STEPS if steps.INFORM_STEPS[name].literal]


def _printed(step: steps.InformStep) -> str:
    return ", ".join(f"{option}={value}" for option, value in step.literal.items())


def set_router(config: ml_collections.ConfigDict, name: str) -> None:
    """Sets ``config.model.router`` and K to a preset, all options of the router included.

    Args:
      config: what a config file edits.
      name: as of :func:`find_router`; ``NAME@STEP.OPTION=VALUE``, repeatedly, sets options of its steps too, and
        ``NAME@moe.FIELD=VALUE`` settings of ``model.moe``.

    Raises:
      ValueError: unknown name, step or option; lists the known ones.
    """
    find_router(name.partition("@")[0]).apply(config.model)
    set_options(config, name)


def set_options(config: ml_collections.ConfigDict, name: str) -> None:
    """Sets what stands behind a router's name, as in ``NAME@STEP.OPTION=VALUE`` or ``NAME@moe.shared_experts=1``.

    Raises:
      ValueError: a step that the router does not have, an unknown option, or a setting of ``model.moe`` that has a key.
    """
    name, *settings = name.split("@")
    router = config.model.router
    known = {step.name: step.option_types for step in _steps_of(router)}
    for setting in settings:
        match = re.fullmatch(r"(\w+)\.(\w+)=(.+)", setting)
        if match is None:
            raise checks.error("router", "NAME@STEP.OPTION=VALUE", setting)
        group, option, value = match.groups()
        if group != _MOE and group not in known:
            raise checks.error(f"router={name}", f"options of its steps {', '.join(known)}, or of {_MOE}", setting)
        types = _moe_types() if group == _MOE else known[group]
        if option not in types:
            raise checks.error(f"router={name}", f"options {', '.join(types) or 'none'} of {group}", setting)
        place = "model.moe" if group == _MOE else f"model.router.options.{group}"
        target = config.model.moe if group == _MOE else router.options[group]
        target[option] = from_text.value(f"{place}.{option}", value, types[option])


def _moe_types() -> dict[str, Any]:
    """Types of the settings of ``model.moe`` that no key of a config file's argument sets."""
    hints = get_type_hints(config_lib.MoeConfig, include_extras=True)
    return {name: hint for name, hint in hints.items() if name not in ("layers", "num_experts", "num_selected_experts")}


def with_top(name: str, k: int) -> str:
    """The name of a router of the family ``smoe_topK`` with this K; other names stay."""
    return _TOP.sub(f"smoe_top{k}", name)


def set_top(config: ml_collections.ConfigDict, name: str, k: int) -> None:
    """Sets K, the experts of each token.

    Raises:
      ValueError: the router's name says another K.
    """
    if with_top(name, k) != name:
        raise checks.error("top", f"{config.model.moe.num_selected_experts} with router={name}", k)
    config.model.moe.num_selected_experts = k
