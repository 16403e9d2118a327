"""Exports a trained model for programs that know nothing of this package.

    python -m vmoe_inform.export --workdir=DIR[@STEP] --directory=FOLDER [--to=safetensors,jax_export] [--licence=NAME]

Writes into FOLDER: model.safetensors with all arrays, config.json, README.md, which is the model card, and the
tokenizer of a run on text. The card has the scores of the checkpoint if it was evaluated. With --to=jax_export there is
also model.jax_export: the evaluation as a StableHLO program for any batch size, which JAX runs without this package.

The folder can be imported again, bit-identically (python -m vmoe_inform.import_checkpoint). Paths of this machine are
not in it. docs/export.md shows how the files are used. Exit codes: 0 done, 2 bad input.
"""

from typing import Annotated

import jax

from vmoe_inform import checks, command_line, storage
from vmoe_inform.runs import checkpoint_path

_WORKDIR = command_line.define_run_path("workdir", "Folder of the run, or FOLDER@STEP.")
_DIRECTORY = command_line.define_run_path("directory", "Folder to write, empty or not there yet.")
_TO = command_line.define("to", tuple[checks.Name, ...], ("safetensors",), "safetensors, jax_export, or both.")
_LICENCE = command_line.define(
    "licence", Annotated[str, checks.Text(200)], "", "Of the parameters, as apache-2.0; for the model card."
)
_PLATFORMS = command_line.define(
    "platforms", tuple[checks.Name, ...], ("cpu", "cuda", "rocm", "tpu"), "Where the program of jax_export can run."
)


def main(_: list[str]) -> None:
    """Writes the folder."""
    given = checkpoint_path.parse(command_line.required(_WORKDIR, "the folder of a run"))
    directory = storage.path("--directory", command_line.required(_DIRECTORY, "a folder to write"))
    from vmoe_inform.export import folder
    from vmoe_inform.runs import run as runs
    from vmoe_inform.sharding.mesh import make_mesh

    folder.check_kinds(_TO.value, _PLATFORMS.value)
    saved = runs.find(given.folder, given.step)
    with storage.gone_on_error(directory):
        folder.check_folder(directory)
        run = saved.load_intact(make_mesh(1, 1, jax.devices()[:1]))
        paths = folder.write(saved, run, directory, _TO.value, licence=_LICENCE.value, platforms=_PLATFORMS.value)
    command_line.say(*map(str, paths))


if __name__ == "__main__":
    command_line.run(main, keeps_programs=True)
