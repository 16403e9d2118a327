"""An :class:`Analysis` of checkpoints and whole sets of records."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from vmoe_inform import checks
from vmoe_inform.analysis.collect import layers
from vmoe_inform.analysis.collect._adjacencies import adjacencies
from vmoe_inform.analysis.collect._facts import run_facts
from vmoe_inform.analysis.collect.choices import Choices, fluctuation
from vmoe_inform.analysis.collect.observing import Observer, Seen
from vmoe_inform.analysis.data import AnalysedData
from vmoe_inform.analysis.inputs import AnalysedRuns
from vmoe_inform.analysis.results import Analysis, Fluctuation, Layer, OtherLayer, OtherRun, RunFacts
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog

Say = Callable[[str], None]


def of_checkpoints(
    runs: AnalysedRuns,
    data: AnalysedData[Any],
    *,
    watchdog: Watchdog = watchdog_lib.OFF,
    say: Say = print,
) -> tuple[Analysis, Choices]:
    """Analyses a checkpoint of a run, and what changed since an earlier one, if there is one.

    It holds probabilities of one batch at a time. Of all records it keeps the experts of their tokens, a byte each (two
    from 256 experts on).

    Args:
      runs: to analyse.
      data: that they are shown.
      watchdog: is told of every batch.
      say: called with a line for each piece of work that is done.

    Returns:
      the analysis, and the choices of the run for the records that could be read.

    Raises:
      ValueError: records that are unavailable, too many that cannot be read.
    """
    own, other = runs.own, runs.other
    look = _Look(data, data.source(), say)

    observer = Observer(own, watchdog=watchdog)
    run, of_layers, changes, seen = look.at(own, runs.before, observer)
    states = runs.adjacency_states
    matrices = adjacencies(own.config.model, states, step=own.step) if states else {}
    found = Analysis(
        run=run,
        layers={block: dataclasses.replace(layer, adjacency=matrices.get(block)) for block, layer in of_layers.items()},
        class_names=data.class_names,
        fluctuation=changes,
    )
    if other is not None:
        # Runs that differ in their seed only, or checkpoints of one, share what is compiled.
        same = (own.config.model, own.config.data) == (other.config.model, other.config.data)
        its_observer = observer if same else Observer(other, watchdog=watchdog)
        its_run, its_layers, its_changes, _ = look.at(other, runs.other_before, its_observer)
        against = OtherRun(its_run, compared(of_layers, its_layers), its_changes)
        found = dataclasses.replace(found, against=against)
    corruptions = data.corruptions(observer, own.variables, seen.choices, say)
    return dataclasses.replace(found, corruptions=corruptions), seen.choices


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
    """One set of records that runs are shown."""

    data: AnalysedData[Any]
    source: Any
    say: Say

    def at(
        self, run: Run, before: Run | None, observer: Observer
    ) -> tuple[RunFacts, dict[str, Layer], Fluctuation | None, Seen]:
        """What a run does, and what changed since its earlier checkpoint."""
        model, suite = run.config.model, self.data.suite
        seen = observer.observe(run.variables, self.source)
        facts = run_facts(
            *(model, self.data.unit),
            name=run.name,
            step=run.step,
            suite=suite,
            count=seen.count,
            metric=observer.metric,
            score=seen.score,
        )
        self.say(f"{run.name}, step {run.step}: {facts.count:,} {facts.unit} ({suite}), {facts.score_in_words}")
        of_layers = {block: layers.of_sums(sums, model.num_tokens) for block, sums in seen.sums.items()}
        if before is None:
            return facts, of_layers, None, seen
        earlier = observer.choices(before.variables, self.source).of(seen.choices.indices)
        changes = fluctuation(earlier.of_tokens, seen.choices.of_tokens)
        self.say(f"{run.name}: fluctuation from step {before.step} to {run.step}")
        return facts, of_layers, Fluctuation(before.step, run.step, changes), seen
