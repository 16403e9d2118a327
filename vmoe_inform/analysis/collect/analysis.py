"""An :class:`Analysis` of checkpoints and whole sets of images, or of one trace."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vmoe_inform import checks
from vmoe_inform.analysis.collect import _corruptions, layers
from vmoe_inform.analysis.collect._adjacencies import adjacencies
from vmoe_inform.analysis.collect._facts import run_facts
from vmoe_inform.analysis.collect.choices import fluctuation
from vmoe_inform.analysis.collect.images import Images
from vmoe_inform.analysis.collect.observing import Observer, Seen
from vmoe_inform.analysis.collect.traces import Trace
from vmoe_inform.analysis.inputs import AnalysedRuns
from vmoe_inform.analysis.results import Analysis, Fluctuation, Layer, OtherLayer, OtherRun, RunFacts
from vmoe_inform.axes import Int, Tree
from vmoe_inform.config import as_images
from vmoe_inform.data.sources import Source
from vmoe_inform.nn.vit import VisionTransformer
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog

Say = Callable[[str], None]


def of_trace(
    model: VisionTransformer,
    trace: Trace,
    labels: Int[Any, " n"],
    class_names: Sequence[str],
    *,
    name: str,
    step: int = 0,
    suite: str = "clean",
) -> Analysis:
    """The analysis of a trace, for the figures of notebooks.

    Args:
      model: that was traced.
      trace: with all fields; with graphs, if these are to be shown.
      labels: of the images.
      class_names: of the labels.
      name: of the run, for titles.
      step: of the checkpoint.
      suite: what the images are.

    Raises:
      ValueError: as :func:`vmoe_inform.analysis.collect.layers.of_trace`.
    """
    of_layers = layers.of_trace(trace, labels, num_classes=len(class_names))
    hits = trace.logits.argmax(-1) == labels
    run = run_facts(model.config, name=name, step=step, suite=suite, count=len(hits), top1=float(hits.mean()))
    return Analysis(run, of_layers, tuple(class_names))


def of_checkpoints(
    runs: AnalysedRuns,
    images: Images,
    *,
    watchdog: Watchdog = watchdog_lib.OFF,
    say: Say = print,
) -> tuple[Analysis, np.ndarray]:
    """Analyses a checkpoint of a run, and what changed since an earlier one, if there is one.

    It holds probabilities of one batch at a time. Of all images it keeps the experts of their tokens, a byte each (two
    from 256 experts on).

    Args:
      runs: to analyse.
      images: that they are shown.
      watchdog: is told of every batch.
      say: called with a line for each piece of work that is done.

    Returns:
      the analysis, and which of the images could be read [n].

    Raises:
      ValueError: images that are unavailable, too many that cannot be read.
    """
    own, other = runs.own, runs.other
    look = _Look(images.chosen(), str(images.choice), say)

    observer = Observer(own, watchdog=watchdog)
    run, of_layers, changes, seen = look.at(own, runs.before, observer)
    states = runs.adjacency_states
    matrices = adjacencies(own.config.model, states, step=own.step) if states else {}
    found = Analysis(
        run=run,
        layers={block: dataclasses.replace(layer, adjacency=matrices.get(block)) for block, layer in of_layers.items()},
        class_names=images.class_names,
        fluctuation=changes,
    )
    if other is not None:
        # Runs that differ in their seed only, or checkpoints of one, share what is compiled.
        same = (own.config.model, own.config.data) == (other.config.model, other.config.data)
        its_observer = observer if same else Observer(other, watchdog=watchdog)
        its_run, its_layers, its_changes, _ = look.at(other, runs.other_before, its_observer)
        against = OtherRun(its_run, compared(of_layers, its_layers), its_changes)
        found = dataclasses.replace(found, against=against)
    if images.choice.all_corruptions:
        all_corruptions = _corruptions.of_all(observer, own.variables, images, seen, say)
        found = dataclasses.replace(found, corruptions=all_corruptions)
    return found, seen.readable


def compared(own: Mapping[str, Layer], other: Mapping[str, Layer]) -> dict[str, OtherLayer]:
    """By block what the other run's layer does, and the ratio of the entropies (Mutual-Inform SMoE, Fig. 2, right).

    Raises:
      ValueError: the runs have other layers.
    """
    if list(own) != list(other):
        raise checks.error("MoE layers", ", ".join(own), ", ".join(other))
    return {
        block: OtherLayer(
            entropy_ratio=own[block].entropy / its.entropy if its.entropy > 0 else None,
            entropy=its.entropy,
            load_cv=its.load_cv,
            load=its.load,
            dropped=its.dropped,
        )
        for block, its in other.items()
    }


@dataclasses.dataclass(frozen=True)
class _Look:
    """One set of images that runs are shown."""

    source: Source
    suite: str
    say: Say

    def at(
        self, run: Run, before: Run | None, observer: Observer
    ) -> tuple[RunFacts, dict[str, Layer], Fluctuation | None, Seen]:
        """What a run does, and what changed since its earlier checkpoint."""
        model = as_images(run.config).model
        seen = observer.observe(run.variables, self.source)
        facts = run_facts(model, name=run.name, step=run.step, suite=self.suite, count=seen.count, top1=seen.top1)
        self.say(f"{run.name}, step {run.step}: {seen.count:,} images ({self.suite}), top-1 {100 * seen.top1:.1f} %")
        of_layers = {block: layers.of_sums(sums, num_tokens=model.num_tokens) for block, sums in seen.sums.items()}
        if before is None:
            return facts, of_layers, None, seen
        after = {block: chosen[seen.readable] for block, chosen in seen.chosen.items()}
        changes = fluctuation(self._choices(before.variables, observer, seen), after)
        self.say(f"{run.name}: fluctuation from step {before.step} to {run.step}")
        return facts, of_layers, Fluctuation(before.step, run.step, changes), seen

    def _choices(self, variables: Tree, observer: Observer, seen: Seen) -> dict[str, np.ndarray]:
        """The experts of the readable images' tokens by another checkpoint."""
        chosen = {block: np.full_like(of_block, 0) for block, of_block in seen.chosen.items()}
        for records, _, experts in observer.choices(variables, self.source):
            for block, of_block in experts.items():
                chosen[block][records] = of_block
        return {block: of_block[seen.readable] for block, of_block in chosen.items()}
