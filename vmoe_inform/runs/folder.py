"""The resolved config in a run's folder, which identifies the run when it is started again."""

import dataclasses
from collections.abc import Collection
from typing import Any

import jax

from vmoe_inform import checks, storage
from vmoe_inform import config as config_lib
from vmoe_inform.config import identity
from vmoe_inform.config.identity import Change, Effect

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"  # of runs on text
MOST_TOKENIZER_BYTES = 1 << 28


def check_same_run(
    workdir: storage.Path,
    config: config_lib.Config,
    *,
    may_change: Collection[Effect] = (Effect.RESULTS, Effect.MACHINE),
) -> list[Change]:
    """Checks that the run in ``workdir``, if there is one, is the run that ``config`` describes.

    Classes and a vocabulary that only one of the two names are taken to be the other's.

    Args:
      workdir: of the run, which may have been begun by an older version of the library.
      config: what it should be.
      may_change: effects of the settings that may differ; by default what still is the same run, continued.

    Returns:
      the settings that differ, as they may.

    Raises:
      ValueError: it has another model, data, seed, objective or optimizer; lists the fields. Or its config cannot be
        read, or the run would start from itself.
    """
    initial = config.train.initial_checkpoint
    if initial and storage.resolved(storage.path("train.initial_checkpoint", initial)) == storage.resolved(workdir):
        raise checks.error("train.initial_checkpoint", "the folder of another run than the workdir", initial)
    path = workdir / CONFIG_FILE
    if not storage.exists(path):
        return []
    before = read_config(workdir)
    before, config = (config_lib.with_recorded(one, other) for one, other in ((before, config), (config, before)))
    differing = identity.changes(before, config)
    refused = [str(change) for change in differing if change.effect not in may_change]
    if refused:
        raise checks.InputError(
            f"workdir: expected the settings in {path}, since they decide what the run is; received others "
            f"(there -> received): {'; '.join(refused)}"
        )
    return differing


def recorded_class_names(workdir: storage.Path) -> tuple[str, ...]:
    """Names of a run's classes in the order of its labels; empty: no run, or one of an older version."""
    return read_config(workdir).data.class_names if storage.exists(workdir / CONFIG_FILE) else ()


def with_recorded(config: config_lib.Config, workdir: storage.Path) -> config_lib.Config:
    """The config with what the run in ``workdir``, if there is one, records of its data."""
    return config_lib.with_recorded(config, read_config(workdir)) if storage.exists(workdir / CONFIG_FILE) else config


def with_kept_tokenizer(config: config_lib.Config, workdir: storage.Path) -> config_lib.Config:
    """The config with the tokenizer that the run in ``workdir`` keeps, if it keeps one: the text need not be there."""
    path = workdir / TOKENIZER_FILE
    if not isinstance(config, config_lib.LanguageConfig) or not storage.exists(path):
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, tokenizer=str(path), vocabulary=""))


def write_config(workdir: storage.Path, config: config_lib.Config) -> None:
    """Writes the resolved config, whole or not at all."""
    if jax.process_index() == 0:
        storage.write_json(workdir / CONFIG_FILE, config_lib.to_json(config), within=workdir)


def read_config(workdir: storage.Path, field: str = "workdir") -> config_lib.Config:
    """The resolved config of a run, which may have been begun by an older version of the library.

    ``field`` named the folder, for errors.

    Raises:
      FileNotFoundError: no run in ``workdir``.
      ValueError: the file is damaged, or has settings that this version does not know.
    """
    path = workdir / CONFIG_FILE
    if not storage.exists(path):
        raise FileNotFoundError(f"{field}: expected a run with {CONFIG_FILE}; received {str(workdir)!r}")
    tree = _read(path)
    try:
        return config_lib.parse_recorded(tree, workdir)
    except checks.InputError as problem:
        raise checks.InputError(f"{path}: {problem}") from None


def hash_by_older_versions(workdir: storage.Path) -> str:
    """The hash of a run's config in versions that hashed all settings; it identifies their evaluations."""
    return identity.hash_of(_read(workdir / CONFIG_FILE))


def _read(path: storage.Path) -> dict[str, Any]:
    try:
        return storage.read_json(path, dict[str, Any], within=path.parent)
    except storage.DamagedFileError as problem:
        raise problem.with_remedy("restore it: nothing else says what the run is") from None
