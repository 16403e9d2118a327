"""Which settings of a trained model's routers may be changed without training, and what such a router is called."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Tree
from vmoe_inform.config import Config
from vmoe_inform.routing.steps import LossStep, all_steps

_INFORM, _INFORM_BY_LAYER = "model.router.inform", "model.router.inform_by_layer"
_OPTIONS = "model.router.options."
_OF_ROUTERS = "/router/"  # in the paths of their arrays
_GROUPS = (_OPTIONS, "model.router.", "model.moe.")  # the longer prefix first
# Of these groups, what does nothing in evaluation.
_OF_TRAINING = frozenset(
    {
        "model.router.noise_std",
        "model.router.losses",
        "model.moe.capacity_factor",
        "model.moe.expert_dropout_rate",
        "model.moe.dispatch",
    }
)


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """A run's config with other settings of its routers; all else is as the run was trained.

    So are the weights of the chosen experts: a plain V-MoE does not renormalise them, with an inform step or without,
    unless ``model.router.options.top_experts.renormalize`` says so.

    Args:
      config: of a run.
      settings: values by field. ``model.router.inform`` replaces ``inform_by_layer``, and the other way round.

    Raises:
      ValueError: settings that are no router's, that do nothing in evaluation, or that do not go together.
    """
    if not config.model.moe_layers:
        raise checks.error("workdir", "a run with MoE layers, whose routers can be changed", "one without")
    for field in settings:
        if not field.startswith(_GROUPS):
            expected = "a field of model.router or model.moe: all else is as the run was trained"
            raise checks.error("--config", expected, field)
        if field in _OF_TRAINING or _is_option_of_training(field):
            raise checks.error("--config", "a setting that changes what an evaluated router does", field)
    one_choice: dict[str, Any] = {}
    if _INFORM in settings and _INFORM_BY_LAYER not in settings:
        one_choice[_INFORM_BY_LAYER] = ()
    elif _INFORM_BY_LAYER in settings and _INFORM not in settings:
        one_choice[_INFORM] = "none"
    return config_lib.override(config, {**one_choice, **settings})


def _is_option_of_training(field: str) -> bool:
    """Whether a field is an option by which a step learns, and which changes nothing of what was learned."""
    if not field.startswith(_OPTIONS):
        return False
    name, _, option = field.removeprefix(_OPTIONS).partition(".")
    step = all_steps().get(name)
    return isinstance(step, LossStep) or (step is not None and option in step.training_options)


def used(settings: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The settings without options of steps that the router does not have.

    Args:
      settings: values by field.
      config: with these settings.
    """
    steps = config.model.router.step_names
    return {
        field: value
        for field, value in settings.items()
        if not field.startswith(_OPTIONS) or field.removeprefix(_OPTIONS).partition(".")[0] in steps
    }


def label(settings: Mapping[str, Any]) -> str:
    """Settings as a router's name: ``inform=similarity, similarity.temperature=0.1``."""
    return ", ".join(f"{short(field)}={shown(value)}" for field, value in settings.items())


def short(field: str) -> str:
    """A field of the routers without its group, as ``similarity.temperature``."""
    prefix = next((prefix for prefix in _GROUPS if field.startswith(prefix)), "")
    return field.removeprefix(prefix)


def shown(value: Any) -> str:
    """A value as a command line has it; several inform steps as ``attention+similarity``."""
    if isinstance(value, list | tuple):
        return "+".join(map(shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def variables_for(
    variables: dict[str, Tree], shapes: Mapping[str, Tree], settings: Mapping[str, Any]
) -> dict[str, Tree]:
    """The variables that a model needs, out of those of a trained one.

    Args:
      variables: of the trained model.
      shapes: of the other model's variables.
      settings: that its routers differ in.

    Raises:
      ValueError: the trained model has not learned all of them, or experts of it would be left out; lists the first.
    """
    given, wanted = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (variables, shapes))
    lacking = [path for path, leaf in wanted.items() if path not in given or given[path].shape != leaf.shape]
    if lacking:
        received = f"one that learns {_listed(lacking, wanted)}"
        expected = "a router that learns no arrays but those of the run"
        raise checks.InputError(f"{label(settings)}, without training: expected {expected}; received {received}")
    unused = [path for path in given if path not in wanted and _OF_ROUTERS not in path]
    if unused:
        received = f"one without {_listed(unused, given)}"
        expected = "a model with all arrays of the run but those of its routers"
        raise checks.InputError(f"{label(settings)}, without training: expected {expected}; received {received}")
    return flax.traverse_util.unflatten_dict({path: given[path] for path in wanted}, sep="/")


def _listed(paths: Sequence[str], arrays: Mapping[str, Any]) -> str:
    """The first of the arrays, and how many more there are."""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]} {list(arrays[paths[0]].shape)}{more}"
