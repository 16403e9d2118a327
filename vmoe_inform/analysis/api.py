"""A whole analysis of runs."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from vmoe_inform import checks
from vmoe_inform.analysis.collect import layers
from vmoe_inform.analysis.collect.choices import Choices, fluctuation
from vmoe_inform.analysis.collect.observing import Observer
from vmoe_inform.analysis.collect.recording import block_names
from vmoe_inform.analysis.data import AnalysedData, ViewsT
from vmoe_inform.analysis.inputs import AnalysedRuns
from vmoe_inform.analysis.layer_results import Layer
from vmoe_inform.analysis.results import Analysis, Fluctuation, OtherLayer, OtherRun, RunFacts
from vmoe_inform.config import LanguageModelConfig, ModelConfig
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog

Say = Callable[[str], None]


def analyze(
    runs: AnalysedRuns, data: AnalysedData[ViewsT], *, watchdog: Watchdog = watchdog_lib.OFF, say: Say = print
) -> tuple[Analysis, ViewsT]:
    """The analysis of a run that ``python -m vmoe_inform.analyze`` writes, without writing it.

    It holds probabilities of one batch at a time. Of all records it keeps the experts of their tokens, a byte each (two
    from 256 experts on).

    Args:
      runs: checkpoints, from :func:`vmoe_inform.analysis.inputs.load_inputs`.
      data: from the same.
      watchdog: is told of every batch.
      say: called with a line for each piece of work that is done.

    Returns:
      the content of analysis.json, and what the interactive page shows.

    Raises:
      ValueError, FileNotFoundError: bad input; the message says field, expected and received.
    """
    source, observer = data.source(), Observer(runs.own, watchdog=watchdog)
    of_runs = []
    for run, before in ((runs.own, runs.before), (runs.other, runs.other_before)):
        if run is not None:
            of_runs.append(_look(observer.with_run(run), before, data, source, say))
    own, *others = of_runs
    found = Analysis(
        run=own.run,
        layers={
            block: dataclasses.replace(layer, adjacency=runs.adjacencies.get(block))
            for block, layer in own.layers.items()
        },
        class_names=data.class_names,
        fluctuation=own.fluctuation,
        against=next((OtherRun(its.run, compared(own.layers, its.layers), its.fluctuation) for its in others), None),
        corruptions=data.corruptions(observer, say),
        swapped_words=data.swapped_words(observer, say),
    )
    return found, data.views([run for run in (runs.own, runs.other) if run is not None], own.choices, found)


@dataclasses.dataclass(frozen=True)
class _Found:
    """What a checkpoint does, and what changed since an earlier one; by block where it is of layers."""

    run: RunFacts
    layers: Mapping[str, Layer]
    fluctuation: Fluctuation | None
    choices: Choices


def _look(observer: Observer, before: Run | None, data: AnalysedData[Any], source: Any, say: Say) -> _Found:
    run, seen = observer.run, observer.observe(source)
    facts = run_facts(
        run.config.model,
        name=run.name,
        step=run.step,
        suite=data.suite,
        unit=data.unit,
        count=seen.count,
        metric=observer.metric,
        score=seen.score,
    )
    say(f"{run.name}, step {run.step}: {facts.count:,} {facts.unit} ({facts.suite}), {facts.score_in_words}")
    changes = None
    if before is not None:
        earlier = observer.with_run(before).observe(source).choices.of(seen.choices.indices)
        changes = Fluctuation(before.step, run.step, fluctuation(earlier.of_tokens, seen.choices.of_tokens))
        say(f"{run.name}: fluctuation from step {before.step} to {run.step}")
    of_layers = {block: layers.of_sums(sums, seen.rho.get(block)) for block, sums in seen.sums.items()}
    return _Found(facts, of_layers, changes, seen.choices)


def run_facts(
    config: ModelConfig, *, name: str, step: int, suite: str, unit: str, count: int, metric: str, score: float
) -> RunFacts:
    """What was looked at.

    Args:
      config: of the model.
      name, step, suite, unit, count, metric, score: as of :class:`RunFacts`.
    """
    router = config.router
    select = () if router.select == "top_experts" else (router.select,)  # the usual one is left out
    return RunFacts(
        name=name,
        step=step,
        router=", ".join((" + ".join((router.score, *router.inform_steps)), *select)),
        num_experts=config.moe.num_experts,
        num_selected_experts=config.moe.num_selected_experts,
        num_tokens=config.num_tokens,
        layers=tuple(block_names(config)),
        suite=suite,
        unit=unit,
        count=count,
        metric=metric,
        score=score,
        looks_ahead=isinstance(config, LanguageModelConfig) and config.allow_future,
    )


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
