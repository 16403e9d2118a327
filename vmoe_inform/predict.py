"""Says what is on your own images: the likeliest classes of image files, by a trained model.

    python -m vmoe_inform.predict --workdir=DIR[@STEP] FILES_OR_FOLDERS... [--top=5] [--csv=FILE] [--routing=PAGE.html]

Reads JPEG, PNG, WebP and other images. Folders are searched to the bottom. Each file gets a line: its likeliest classes
and their probabilities (softmax). Images are prepared as the run's evaluation prepares them, and are turned upright if
the camera was not.

--csv=FILE has all files as a table; --npz=FILE the logits and every token's experts. --routing=PAGE.html shows where
the patches of up to 24 images go. Files that cannot be read are named. Exit codes: 0 done; 2 bad input, or some files
could not be read.
"""

import functools
import shutil
import sys

from vmoe_inform import checks, command_line, text
from vmoe_inform.runs import checkpoint_path

_WORKDIR = command_line.define_run_path("workdir", "Folder of the run, or FOLDER@STEP.")
_TOP = command_line.define("top", checks.PositiveInt | None, None, "Classes of each image; default: 5, or all.")
_CSV = command_line.define_output("csv", "Table of all files.")
_NPZ = command_line.define_output("npz", "Logits, and experts of every token, of all files.")
_ROUTING = command_line.define_output("routing", "Page that shows where the patches of the images go.")
_HERE = command_line.define_batches()

_DEFAULT_TOP = 5


def main(words: list[str]) -> int:
    """Returns the exit code."""
    given = checkpoint_path.parse(command_line.required(_WORKDIR, "the folder of a run"))
    csv, npz, routing, here = _CSV(), _NPZ(), _ROUTING(), _HERE()
    from vmoe_inform import prediction
    from vmoe_inform.prediction import page, report
    from vmoe_inform.runs import run as runs

    files = prediction.find_files(words[1:])
    saved = runs.find(given.folder, given.step, here=here)
    class_names = prediction.class_names_of(saved.config)
    if routing is not None:
        page.check_routed(saved.config)
    if (_TOP.value or 1) > len(class_names):
        raise checks.error("--top", f"at most the model's {len(class_names)} classes", _TOP.value)
    run = saved.load_intact()
    unreadable = report.report(
        prediction.predict(run, files, experts=npz is not None),
        files,
        class_names,
        report.Outputs(csv, npz, routing),
        page_of=functools.partial(page.page_of_files, run, files),
        top=_TOP.value or min(_DEFAULT_TOP, len(class_names)),
        width=shutil.get_terminal_size().columns if sys.stdout.isatty() else None,
        say=command_line.say,
        complain=lambda line: print(text.printable(line), file=sys.stderr),
    )
    if unreadable:
        received = f"{unreadable:,} of {len(files):,} that cannot be read"
        raise checks.InputError(f"files: expected images; received {received}, named above")
    return 0


if __name__ == "__main__":
    command_line.run(main, operands="image files, or folders of them", keeps_programs=True)
