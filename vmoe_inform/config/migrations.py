"""Configs that older versions of the library wrote into their runs, in today's words.

A setting that was added needs no entry where its default means what was done before. What was renamed, removed or
added with another meaning has an entry in ``MIGRATIONS``, which stays for good.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from vmoe_inform import checks

Tree = dict[str, Any]  # of config.json: groups of settings by name, nested


@dataclasses.dataclass(frozen=True)
class Renamed:
    """``field``, e.g. ``train.steps``, is called ``now``; its value means the same."""

    field: str
    now: str


@dataclasses.dataclass(frozen=True)
class Removed:
    """``field`` is gone. A run can be read if its value is one of ``dispensable``: what is always done today.

    ``instead`` tells those with another value what to do.
    """

    field: str
    dispensable: tuple[Any, ...]
    instead: str


@dataclasses.dataclass(frozen=True)
class Added:
    """``field`` is new, and runs without it did what ``before`` means, which is not the default."""

    field: str
    before: Any


@dataclasses.dataclass(frozen=True)
class Regrouped:
    """``field`` was a group of settings, which are elsewhere now.

    ``regroup(tree, group)`` puts them there, in a tree that no longer has the group; ``{name}`` in ``now`` stands for
    one of them.
    """

    field: str
    regroup: Callable[[Tree, Tree], None]
    now: str


@dataclasses.dataclass(frozen=True)
class Unread:
    """``field`` was not read where the field ``of`` is ``value``; today it has to be ``now`` there."""

    field: str
    of: str
    value: Any
    now: Any


def _losses_by_name(tree: Tree, weights: Tree) -> None:
    """Weights of all losses -> names of those in the objective, whose weights are options."""
    options = _group_of(tree, "model.router.options.")[0]
    general = {name: weights.pop(name, default) for name, default in FIRST_LOSS_WEIGHTS.items()}
    distillation = weights.pop("distillation", 0.0)
    if weights:
        raise checks.error("model.router.losses", f"the keys {', '.join(FIRST_LOSS_WEIGHTS)}, distillation", [*weights])
    chosen = [name for name, weight in general.items() if weight != 0]
    tree["model"]["router"]["losses"] = chosen
    for name in chosen:
        options.setdefault(name, {})["weight"] = general[name]
    if distillation != 0:
        options.setdefault("distilled", {})["distillation_weight"] = distillation


# Weights of losses as they were by default when each was a field of its own, in the order in which they were added up.
FIRST_LOSS_WEIGHTS = {"importance": 0.005, "switch": 0.0, "gshard": 0.0, "z": 0.0, "balance": 0.0, "load": 0.005}

Migration = Renamed | Removed | Added | Regrouped | Unread

# In the order of time: each reads what those above it have left.
MIGRATIONS: tuple[Migration, ...] = (
    # Not only images are sequences of tokens.
    Renamed("model.moe.group_size_images", "model.moe.group_size_sequences"),
    # A loss is a registered step, whose options are with those of the other steps.
    Regrouped(
        "model.router.losses",
        _losses_by_name,
        "model.router.options.{name}.weight of a loss that model.router.losses names (of distillation: "
        "model.router.options.distilled.distillation_weight)",
    ),
    # The model decides what a token may know of the others.
    *(
        Removed(
            f"model.router.options.{step}.mask",
            dispensable=("none",),
            instead="the model decides: tokens of an image see each other, those of a causal model of text look back",
        )
        for step in ("similarity", "attention")
    ),
    # The digits come with a package.
    Unread("data.directory", "data.source", "digits", now=""),
)


def migrate(tree: Tree, migrations: Sequence[Migration] = MIGRATIONS) -> Tree:
    """The content of a config.json of any older version as today's version would have written it.

    Args:
      tree: stays as it is.
      migrations: in the order of time.

    Raises:
      ValueError: a removed setting with a value that has no counterpart.
    """
    tree = copy.deepcopy(tree)
    for migration in migrations:
        group, name = _group_of(tree, migration.field)
        match migration:
            case Renamed(now=now) if name in group:
                new_group, new_name = _group_of(tree, now)
                new_group[new_name] = group.pop(name)
            case Removed(dispensable=dispensable, instead=instead) if name in group:
                value = group.pop(name)
                if value not in dispensable:
                    expected = " or ".join(map(repr, dispensable)) + f", since the setting was removed ({instead})"
                    raise checks.error(migration.field, expected, value)
            case Added(before=before):
                group.setdefault(name, before)
            case Regrouped(regroup=regroup) if isinstance(group.get(name), dict):
                regroup(tree, group.pop(name))
            case Unread(of=of, value=value, now=now) if name in group:
                other, other_name = _group_of(tree, of)
                if other.get(other_name) == value:
                    group[name] = now
    return tree


def first_name(field: str, migrations: Sequence[Migration] = MIGRATIONS) -> str:
    """The first name of a setting, which hashes of configs use."""
    for migration in reversed(migrations):
        if isinstance(migration, Renamed) and migration.now == field:
            field = migration.field
    return field


def new_name(field: str, migrations: Sequence[Migration] = MIGRATIONS) -> str:
    """The present name of a setting; the same name if it was not renamed."""
    for migration in migrations:
        if isinstance(migration, Renamed) and migration.field == field:
            field = migration.now
    return field


def renamed(name: str, migrations: Sequence[Migration] = MIGRATIONS) -> str | None:
    """Today's field of a setting that once had this name in its group; None if there was none."""
    fields = (m.field for m in migrations if isinstance(m, Renamed) and m.field.rpartition(".")[2] == name)
    return next((new_name(field, migrations) for field in fields), None)


def regrouped(field: str, migrations: Sequence[Migration] = MIGRATIONS) -> str | None:
    """In words, where a setting is today whose group is none any more; None if its group still is one."""
    group, _, name = field.rpartition(".")
    return next((m.now.format(name=name) for m in migrations if isinstance(m, Regrouped) and m.field == group), None)


def _group_of(tree: Tree, field: str) -> tuple[Tree, str]:
    """The group that a field is in, made if there is none, and the field's own name there."""
    *groups, name = field.split(".")
    for group in groups:
        inner = tree.setdefault(group, {})
        if not isinstance(inner, dict):
            raise checks.error(field.rpartition(".")[0], "a group of settings", inner)
        tree = inner
    return tree, name
