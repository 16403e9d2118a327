"""Shows what the routers of a trained model do: tables, figures, and a page to look at single images.

    python -m vmoe_inform.analyze --workdir=DIR [--checkpoints=last2] [--against=OTHER_DIR[@STEP]] [--suite=clean]

Writes into DIR/analysis: analysis.json (from which every figure can be drawn, see vmoe_inform/analysis/document.py),
the figures as figures/NAME.png and .svg, and routing.html, which shows routing maps of single images. The report that
vmoe_inform.evaluate writes afterwards has the figures too. docs/analysis.md says what they show.

``--checkpoints``: the newest is looked at, and how many tokens chose other experts in the one before (fluctuation).
``last2`` are the newest two, ``STEP,STEP`` any two; of a single ``STEP`` there is no fluctuation. By default the newest
two, or the only one. ``--against``: another run with the same number of experts, its newest checkpoint or that of STEP.

``--suite``: ``clean`` test images; ``c:NAME:SEVERITY``, the same under a corruption; or ``c``, clean images and how
routing and accuracy move under all 75 corruptions. ``--images=N`` looks at N images, evenly over the test set.

Several processes (docs/launching.md) share out the images, and the first of them writes.
"""

import pathlib
from typing import TYPE_CHECKING

from absl import flags

from vmoe_inform import checks, command_line
from vmoe_inform.config import Config
from vmoe_inform.evaluation import place as place_lib
from vmoe_inform.sharding import processes

if TYPE_CHECKING:
    from vmoe_inform.analysis.observing import Subject

_LAST_TWO = "last2"

_JOIN_PROCESSES = command_line.define_processes()
_ON_THIS_MACHINE = command_line.define_machine()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_CHECKPOINTS = flags.DEFINE_list("checkpoints", None, "last2, STEP or STEP,STEP; by default the newest two.")
_AGAINST = flags.DEFINE_string("against", None, "Folder of another run, or FOLDER@STEP, to stand beside this one.")
_SUITE = flags.DEFINE_string("suite", "clean", "clean, c:NAME:SEVERITY (as c:fog:3), or c: all corruptions.")
_IMAGES = flags.DEFINE_integer("images", None, "Look at so many images, evenly over the test set; by default all.")


def main(_: list[str]) -> None:
    """Analyses a run."""
    if not _WORKDIR.value:
        raise checks.error("--workdir", "the folder of a run", None)
    workdir = pathlib.Path(_WORKDIR.value)
    against = None if _AGAINST.value is None else place_lib.parse(_AGAINST.value, flag="--against")
    _JOIN_PROCESSES()
    from vmoe_inform.analysis import images as images_lib
    from vmoe_inform.analysis import page, run, showing, tracing, write
    from vmoe_inform.training import restore as restore_lib
    from vmoe_inform.training.run_folder import read_config

    choice = images_lib.parse(_SUITE.value)
    config = _ON_THIS_MACHINE(read_config(workdir))
    tracing.check_has_routers(config.model)
    steps = _steps(restore_lib.kept_steps(workdir), workdir)
    if against is not None:
        other_config = _ON_THIS_MACHINE(read_config(against.workdir))
        run.check_comparable(config, other_config)
        other_step = restore_lib.find_step(against.workdir, against.step)
    images = images_lib.Images(config, _IMAGES.value)
    say = print if processes.is_main() else lambda line: None

    names = [workdir.resolve().name]
    own = _subject(workdir, names[0], config, steps)
    other = None
    if against is not None:
        name = against.workdir.resolve().name
        name = name if name != names[0] else str(against)
        other = _subject(against.workdir, name, other_config, [other_step])
    states = restore_lib.routing_states(workdir) if tracing.has_adjacency(config.model) else {}
    found, readable = run.analyze(own, images, choice, other=other, adjacency_states=states, say=say)
    subjects = [own] if other is None else [own, other]
    views = showing.views_of(subjects, images, readable, showing.corruption_to_show(choice, found))
    if processes.is_main():
        for path in write.write(workdir, found, page.page(views)):
            print(path)


def _steps(kept: list[int], workdir: pathlib.Path) -> list[int]:
    """One or two of the steps that are kept, ascending."""
    wanted = _CHECKPOINTS.value
    if wanted is None:
        return kept[-2:]
    if wanted == [_LAST_TWO]:
        if len(kept) < 2:
            raise FileNotFoundError(f"--checkpoints=last2: expected two checkpoints in {workdir}; received step {kept}")
        return kept[-2:]
    if len(wanted) > 2 or not all(step.isdecimal() for step in wanted) or len(set(wanted)) != len(wanted):
        raise checks.error("--checkpoints", "last2, STEP, or STEP,STEP of two different steps", ",".join(wanted))
    steps = sorted(map(int, wanted))
    for step in steps:
        if step not in kept:
            there = ", ".join(map(str, kept))
            raise FileNotFoundError(f"--checkpoints: expected steps among {there} in {workdir}; received {step}")
    return steps


def _subject(workdir: pathlib.Path, name: str, config: Config, steps: list[int]) -> "Subject":
    from vmoe_inform import config as config_lib
    from vmoe_inform.analysis.observing import Subject
    from vmoe_inform.training import restore as restore_lib

    restored = {step: restore_lib.restore(workdir, step) for step in steps}
    mesh = restored[steps[-1]].mesh
    config_lib.check_evaluation_batch(config, mesh.size)
    return Subject(name, config, mesh, {step: of_step.variables for step, of_step in restored.items()})


if __name__ == "__main__":
    command_line.run(main)
