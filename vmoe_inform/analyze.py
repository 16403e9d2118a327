"""Shows what the routers of a trained model do: tables, figures, and a page to look at single images or words.

    python -m vmoe_inform.analyze --workdir=DIR[@STEP] [--checkpoints=last2] [--against=DIR[@STEP]] [--suite=clean]

Writes into DIR/analysis: analysis.json, figures/NAME.png and .svg, and routing.html, which shows the routing of single
images, or of texts word by word. Every figure can be drawn from analysis.json (vmoe_inform/analysis/results.py). The
report that vmoe_inform.evaluate writes afterwards has the figures too. docs/analysis.md says what they show.

``--checkpoints``: the newer one is analysed, and fluctuation is from the older to the newer: the tokens that chose
other experts. ``last2`` are the newest two, ``STEP,STEP`` any two; of a single ``STEP`` there is no fluctuation. The
default is the newest two, or the only one. ``--workdir=DIR@STEP`` is the same as ``--checkpoints=STEP``.
``--against``: another run with the same number of experts, at its newest checkpoint or at STEP.

``--suite``: ``clean`` test images, or ``c:NAME:SEVERITY``, the same under a corruption. ``c`` takes clean images, and
measures how routing and accuracy move under all 75 corruptions. Of runs on text there are ``clean`` test texts. Of
language models there is ``word_swap``, too: how routing and perplexity move with swapped words.
``--limit=N`` takes at most N images or labelled texts, in whole groups (model.moe.group_size_sequences) evenly over the
test set. Of a language model's test text it takes the first N tokens.

Several processes (docs/launching.md) share out the images, and the first of them writes.
"""

from vmoe_inform import checks, command_line, storage
from vmoe_inform.runs import checkpoint_path
from vmoe_inform.sharding import processes

_JOIN_PROCESSES = command_line.define_processes()
_HERE = command_line.define_machine()
_WORKDIR = command_line.define_run_path("workdir", "Folder of the run, or FOLDER@STEP.")
_CHECKPOINTS = command_line.define(
    "checkpoints", checks.Name, None, "last2, STEP or STEP,STEP; by default the newest two."
)
_AGAINST = command_line.define_run_path("against", "Folder of another run, or FOLDER@STEP, to compare with.")
_SUITE = command_line.define(
    "suite",
    checks.Name,
    "clean",
    "clean, c:NAME:SEVERITY (as c:fog:3), or c: all corruptions; of text clean, or word_swap.",
)
_LIMIT = command_line.define("limit", checks.PositiveInt, None, "Images, texts or first tokens at most; default: all.")


def main(_: list[str]) -> None:
    """Analyses a run."""
    given = checkpoint_path.parse(command_line.required(_WORKDIR, "the folder of a run"))
    workdir, checkpoints = given.folder, _CHECKPOINTS.value
    if given.step is not None:
        if checkpoints is not None:
            raise checks.error("--checkpoints", f"none with --workdir={given}", checkpoints)
        checkpoints = str(given.step)
    _JOIN_PROCESSES()
    from vmoe_inform.analysis import api, stored
    from vmoe_inform.analysis.inputs import load_inputs
    from vmoe_inform.analysis.page.catalogue import page_of
    from vmoe_inform.runs.folder import read_config
    from vmoe_inform.sharding import watchdog as watchdog_lib

    read_config(workdir)  # no folder is made in what is no run
    storage.check_folders(workdir / stored.FOLDER / stored.FIGURES, workdir)  # before hours of work, not after
    storage.check_writable(workdir / stored.FOLDER)
    runs, data = load_inputs(
        workdir,
        checkpoints=checkpoints,
        against=_AGAINST.value,
        suite=_SUITE.value,
        number=_LIMIT.value,
        here=_HERE(),
    )
    with watchdog_lib.of_run(runs.own.config.train) as watchdog:
        found, views = api.analyze(runs, data, watchdog=watchdog, say=command_line.say)
    if processes.is_main():
        for path in stored.write(workdir, found, page_of(views)):
            command_line.say(str(path))


if __name__ == "__main__":
    command_line.run(main, keeps_programs=True)
