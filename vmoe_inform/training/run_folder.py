"""The resolved config in a run's folder, by which a run that is started again knows that it is the same."""

import pathlib
import tempfile
from typing import Any

import flax.traverse_util
import jax

from vmoe_inform import checks, storage
from vmoe_inform import config as config_lib

CONFIG_FILE = "config.json"

# What may differ when a run is continued; everything else would make it another run.
_MAY_CHANGE = (
    "profile",
    "train.steps",
    "train.epochs",
    "train.log_every_steps",
    "train.max_nonfinite_steps",
    "train.watchdog_",
    "data.directory",
    "data.num_threads",
    "data.prefetch_batches",
    "data.max_skipped_share",
    "checkpoint.",
    "evaluation.",
    "mesh.",
)


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(config, sep=".")


def check_same_run(
    workdir: pathlib.Path, config: config_lib.Config, *, may_change: tuple[str, ...] = _MAY_CHANGE
) -> None:
    """Checks that the run in ``workdir``, if there is one, is the run that ``config`` describes.

    Args:
      workdir: of the run.
      config: what it should be.
      may_change: beginnings of the fields' names that may differ; by default what still is the same run, continued.

    Raises:
      ValueError: it has another model, data, seed, objective or optimizer; says which fields. Or the run would start
        from itself.
    """
    initial = config.train.initial_checkpoint
    if initial and pathlib.Path(initial).resolve() == workdir.resolve():
        raise checks.error("train.initial_checkpoint", "the folder of another run than the workdir", initial)
    path = workdir / CONFIG_FILE
    if not storage.exists(path):
        return
    before, after = _flat(_read(path)), _flat(config_lib.to_json(config))
    differing = [
        f"{name}: expected {before.get(name)!r} (as in {path}); received {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not name.startswith(may_change)
    ]
    if differing:
        raise checks.InputError("workdir holds another run. " + "; ".join(differing))


def check_writable(workdir: pathlib.Path) -> None:
    """Makes the folder if it does not exist. Raises ValueError if nothing can be written there."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir) as file:
            file.write(bytes(4096))
    except OSError as problem:
        raise checks.error("workdir", f"a folder that can be written to ({problem.strerror})", str(workdir)) from None


def write_config(workdir: pathlib.Path, config: config_lib.Config) -> None:
    """Writes the resolved config, whole or not at all."""
    if jax.process_index() == 0:
        storage.write_json(workdir / CONFIG_FILE, config_lib.to_json(config), within=workdir)


def read_config(workdir: pathlib.Path) -> config_lib.Config:
    """The resolved config of a run.

    Raises:
      FileNotFoundError: no run in ``workdir``.
      ValueError: the file is damaged, or of a library version with other settings.
    """
    path = workdir / CONFIG_FILE
    if not storage.exists(path):
        raise FileNotFoundError(f"workdir: expected a run with {CONFIG_FILE}; received {str(workdir)!r}")
    return config_lib.parse(_read(path))


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return storage.read_json(path, dict[str, Any], within=path.parent)
    except storage.DamagedFileError as problem:
        raise problem.with_remedy("restore it: nothing else says what the run is") from None
