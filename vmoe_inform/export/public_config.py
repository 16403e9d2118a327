"""A run's config as it may be published: no path of the machine that trained it is in it."""

import pathlib
from typing import Any, get_args

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.config import Config, groups, identity
from vmoe_inform.config.identity import Effect

_TOKENIZER = "data.tokenizer"  # the name of a kind, or a path


def public(config: Config) -> Config:
    """The config without paths. One that decides what is learned keeps its last name; the others are empty.

    Args:
      config: as the run's folder has it.
    """
    tree = config_lib.to_json(config)
    for field, setting in identity.settings_of(config).items():
        is_path = field == _TOKENIZER or _is_path(config, field)
        if is_path and setting.value:
            keep = setting.effect is not Effect.MACHINE
            _set(tree, field, pathlib.PurePath(setting.value).name if keep else "")
    return config_lib.parse(tree)


def _is_path(config: Config, field: str) -> bool:
    if ".options." in field:  # of router steps, which read no files
        return False
    hint = groups.hint_of([type(config)], field)
    return any(isinstance(one, checks.LocalPath) for one in get_args(hint))


def _set(tree: dict[str, Any], field: str, value: str) -> None:
    *groups_of_field, name = field.split(".")
    for group in groups_of_field:
        tree = tree[group]
    tree[name] = value
