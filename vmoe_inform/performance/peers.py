"""Images a second of this package and of other programs, in turns in one process.

Their code is not part of this package. A peer is a Python file of the user's, which defines

    def build(config, images, labels): ...

It is given a run (:class:`vmoe_inform.config.Config`) for sizes and rates, and one batch of normalised images
[B, H, W, 3] in float32 and labels [B]. It returns ``{"training": step, "evaluation": step}``, or one of the two. A step
is a function without arguments that works on the batch once. It returns JAX arrays to wait for, or returns when it is
done. A training step continues from the state of the one before.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks, plugins
from vmoe_inform.axes import Float, Int, Tree
from vmoe_inform.config import Config, ImageDataConfig, VisionModelConfig
from vmoe_inform.data.images import augment
from vmoe_inform.performance import timing
from vmoe_inform.performance.step import TrainStep
from vmoe_inform.performance.timing import Spread

OURS = "vmoe_inform"
WORKS = ("training", "evaluation")
Step = Callable[[], Tree]
Build = Callable[[Config, Float[np.ndarray, "B H W 3"], Int[np.ndarray, " B"]], Mapping[str, Step]]


@dataclasses.dataclass(frozen=True)
class PeerRow:
    """One program at one kind of work.

    Attributes:
      work: ``"training"`` or ``"evaluation"``.
      program: ``"vmoe_inform"``, or the name of the peer's file.
      rate: images a second, by the clock.
      processor_rate: images a second of processor time, of all threads.
      ours_over: our rate over this program's; above 1 ours is faster.
      ours_over_processor: the same by processor time, which other programs hardly lengthen.
    """

    work: str
    program: str
    rate: Spread
    processor_rate: Spread
    ours_over: Spread
    ours_over_processor: Spread


def load(path: pathlib.Path) -> Build:
    """The ``build`` of a peer's file.

    Raises:
      FileNotFoundError: no file there.
      ValueError: it cannot be run, or has no such function.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--peers: expected Python files; received {str(path)!r}")
    try:
        module = plugins.run_file(path)
    except Exception as problem:
        raise checks.error("--peers", f"{path} to run", plugins.words(problem)) from None
    build = getattr(module, "build", None)
    if not callable(build):
        raise checks.error("--peers", f"a function build(config, images, labels) in {path}", build)
    return build


def measure(config: Config, peers: Mapping[str, Build], *, repeats: int) -> list[PeerRow]:
    """Times our steps and those of peers on one device, on one random batch.

    Training is the whole step: augmentation, losses, metrics and optimizer. Noise of the router is raised, so that
    loads are even, see :func:`vmoe_inform.performance.step.evenly_routed`. Evaluation is a batch of
    ``train.batch_size`` images too, with the slots of evaluation.

    Args:
      config: of a run on images. Nothing is read from its data source.
      peers: by name.
      repeats: rounds that count.

    Raises:
      ValueError: a model of text, or a peer that gives other steps than those of :data:`WORKS`.
    """
    if not isinstance(config.model, VisionModelConfig) or not isinstance(config.data, ImageDataConfig):
        raise checks.error("model.inputs", "'images', to compare with peers", config.model.inputs)
    training = TrainStep(config, jax.devices()[:1])
    batch = training.random_batch()
    images = np.asarray(augment.normalize(jnp.asarray(batch["image"]), config.data))
    programs: dict[str, Mapping[str, Step]] = {OURS: {"training": training, "evaluation": _evaluation(training)}}
    for name, build in peers.items():
        programs[name] = build(config, images, batch["label"])
        if not programs[name] or not set(programs[name]) <= set(WORKS):
            raise checks.error(f"--peers: build of {name}", f"steps for {' or '.join(WORKS)}", list(programs[name]))
    rows: list[PeerRow] = []
    for work in WORKS:
        steps = {name: of_program[work] for name, of_program in programs.items() if work in of_program}
        rows += _rows(work, steps, len(images), repeats)
    return rows


def _evaluation(training: TrainStep) -> Step:
    """Logits of the batch, from the model as it was initialised."""
    program = training.program
    with program.in_use():
        state = program.initialize()
    batch = program.to_devices(training.random_batch())
    variables = {"params": state.params, "routing": state.routing}

    @jax.jit
    def logits(variables: Tree, batch: Tree) -> Any:
        return program.model.apply(variables, program.task.prepare(None, batch)["inputs"], train=False)[0]

    def step() -> Tree:
        with program.in_use():
            return logits(variables, batch)

    return step


def _rows(work: str, steps: Mapping[str, Step], images: int, repeats: int) -> Sequence[PeerRow]:
    found = timing.interleave({name: functools.partial(timing.times, step) for name, step in steps.items()}, repeats)
    wall = {name: [each.wall for each in times] for name, times in found.items()}
    processor = {name: [each.processor for each in times] for name, times in found.items()}
    return [
        PeerRow(
            work=work,
            program=name,
            rate=timing.spread([images / seconds for seconds in wall[name]]),
            processor_rate=timing.spread([images / seconds for seconds in processor[name]]),
            ours_over=timing.ratio(wall[name], wall[OURS]),
            ours_over_processor=timing.ratio(processor[name], processor[OURS]),
        )
        for name in steps
    ]
