"""The folder of an exported model: arrays, config, card, and what else was asked for."""

from collections.abc import Sequence

from absl import logging

import vmoe_inform
from vmoe_inform import checks, storage
from vmoe_inform import config as config_lib
from vmoe_inform.evaluation import stored
from vmoe_inform.evaluation.files import EvaluationFiles
from vmoe_inform.evaluation.results import Results
from vmoe_inform.export import program
from vmoe_inform.export.card import Card
from vmoe_inform.export.public_config import public
from vmoe_inform.interop import exported as exported_lib
from vmoe_inform.interop.exported import flatten
from vmoe_inform.interop.formats import write_safetensors
from vmoe_inform.nn import models
from vmoe_inform.runs.checkpoint_path import CheckpointPath
from vmoe_inform.runs.folder import CONFIG_FILE, MOST_TOKENIZER_BYTES, TOKENIZER_FILE
from vmoe_inform.runs.run import Run, SavedRun

ARRAYS_FILE, PROGRAM_FILE, CARD_FILE = "model.safetensors", "model.jax_export", "README.md"
SAFETENSORS, JAX_EXPORT = KINDS = ("safetensors", "jax_export")


def check_kinds(kinds: Sequence[str], platforms: Sequence[str]) -> None:
    """Raises ValueError for a kind of export, or a platform of a program, that there is not."""
    for field, given, known in (("--to", kinds, KINDS), ("--platforms", platforms, program.PLATFORMS)):
        unknown = [one for one in given if one not in known]
        if unknown or not given:
            raise checks.unknown(field, f"some of {', '.join(known)}", unknown[0] if unknown else checks.NOTHING, known)


def check_folder(folder: storage.Path) -> None:
    """Raises ValueError for a folder that has something in it, or cannot be written to."""
    if storage.exists(folder) and (not storage.is_folder(folder) or storage.matching(folder, "*")):
        raise checks.error("--directory", "an empty folder, or one that is not there yet", str(folder))
    storage.check_writable(folder, "--directory")


def write(
    saved: SavedRun,
    run: Run,
    folder: storage.Path,
    kinds: Sequence[str] = (SAFETENSORS,),
    *,
    licence: str = "",
    platforms: Sequence[str] = program.PLATFORMS,
) -> list[storage.Path]:
    """Writes the files of an exported model.

    ``model.safetensors`` has all variables, ``config.json`` the run's settings, and ``README.md`` is the model card. A
    run on text has its tokenizer there, too. With ``jax_export``, ``model.jax_export`` is the program.

    Args:
      saved: the checkpoint.
      run: the same, loaded.
      folder: see :func:`check_folder`.
      kinds: some of :data:`KINDS`. A program needs the arrays, so these are always written.
      licence: of the parameters, for the card.
      platforms: that a program can run on.

    Returns:
      the files, the card first.
    """
    exported = program.build(run, platforms) if JAX_EXPORT in kinds else None
    serialized = None if exported is None else bytes(exported.serialize())  # what can fail comes before the files
    arrays = flatten(run.variables)
    metadata = exported_lib.metadata(run.step, vmoe_inform.__version__)
    write_safetensors.write(folder / ARRAYS_FILE, arrays, metadata)
    config = public(saved.recorded)
    storage.write_json(folder / CONFIG_FILE, config_lib.to_json(config))
    names = [ARRAYS_FILE, CONFIG_FILE]
    if storage.exists(saved.folder / TOKENIZER_FILE):
        content = storage.read_bytes(saved.folder / TOKENIZER_FILE, most_bytes=MOST_TOKENIZER_BYTES)
        storage.write_bytes(folder / TOKENIZER_FILE, content)
        names.append(TOKENIZER_FILE)
    if serialized is not None:
        storage.write_bytes(folder / PROGRAM_FILE, serialized)
        names.append(PROGRAM_FILE)
    card = Card(
        name=run.name,
        step=run.step,
        config=config,
        parameters=models.num_parameters(run.variables["params"]),
        results=results_of(saved, run.step),
        licence=licence,
        files={name: storage.sha256(folder / name) for name in names},
        program=exported,
    )
    storage.write_text(folder / CARD_FILE, card.markdown())
    return [folder / name for name in (CARD_FILE, *names)]


def results_of(saved: SavedRun, step: int) -> Results | None:
    """What an evaluation of this checkpoint has found; None if there was none."""
    for path in (CheckpointPath(saved.folder), CheckpointPath(saved.folder, step)):
        try:
            found = stored.read_results(EvaluationFiles(path).results, within=saved.folder)
        except FileNotFoundError:
            continue
        except storage.DamagedFileError as problem:
            logging.warning("no scores: %s", problem)
            continue
        if found.checkpoint_step == step and found.config_hash in (saved.config_hash, saved.older_hash):
            return found
    return None
