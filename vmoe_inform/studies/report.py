"""Writes study.json with every figure, study.md with tables, and the pictures."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vmoe_inform import documents, storage, text
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.headlines import in_order
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.report.pictures import encode
from vmoe_inform.studies import drawing, measure, summary
from vmoe_inform.studies.plan import PlannedRun
from vmoe_inform.studies.summary import LEVEL, Comparison, Interval

FIGURES_FOLDER = "figures"
JSON_FILE = "study.json"
TABLES_FILE = "study.md"

Summary = Mapping[str, Mapping[str, Comparison]]
Study = dict[str, Any]
Cell = Callable[[Mapping[str, Comparison], bool], str]


def write_finished(
    workdir: pathlib.Path,
    runs: Mapping[str, Sequence[PlannedRun]],
    *,
    against: str,
    file: str,
    overrides: Mapping[str, Any],
) -> str:
    """Compares the routers all of whose runs are finished; arguments as of :func:`write`.

    Returns:
      a line that says what was compared: nothing, if runs of ``against`` are missing.
    """
    finished = {router: of_router for router, of_router in runs.items() if all(run.is_finished for run in of_router)}
    if against not in finished:
        return f"no comparison without all runs of {against}"
    write(workdir, finished, against=against, file=file, overrides=overrides)
    return f"{workdir / TABLES_FILE}: {len(finished)} of {len(runs)} routers, {len(runs[against])} seeds"


def write(
    workdir: pathlib.Path,
    runs: Mapping[str, Sequence[PlannedRun]],
    *,
    against: str,
    file: str,
    overrides: Mapping[str, Any],
) -> None:
    """Writes ``study.json``, ``study.md`` and ``figures/*.png``.

    Args:
      workdir: of the study.
      runs: finished ones by router, with the same seeds for all.
      against: the router that the others are compared with.
      file, overrides: of the config, for the reader.
    """
    results = {router: [measure.read(run) for run in of_router] for router, of_router in runs.items()}
    comparisons = summary.summarize(
        {router: [summary.measures_of(result) for result in of_router] for router, of_router in results.items()},
        against,
    )
    # The compiled step is the same whatever the seed.
    flops = {router: of_router[0].flops for router, of_router in results.items()}
    looks_ahead = [router for router, of_router in runs.items() if of_router[0].config.model.allow_future]
    study: Study = {
        "config": file,
        "overrides": dict(overrides),
        "against": against,
        "seeds": [run.config.seed for run in runs[against]],
        "steps": dict(zip(("before", "last"), runs[against][0].measured_steps, strict=True)),
        **({"looks_ahead": looks_ahead} if looks_ahead else {}),
        "interval": f"{100 * LEVEL:.0f} %, Student t over the seeds; differences and ratios are paired by seed",
        "routers": {
            router: {
                "parameters": results[router][0].parameters,
                "flops": flops[router],
                "flops_overhead": of_flops,
                "measures": {name: dataclasses.asdict(found) for name, found in comparisons[router].items()},
            }
            for router, of_flops in summary.overhead(flops, against).items()
        },
        "runs": [
            documents.to_json(result, leave_out_empty=True) for of_router in results.values() for result in of_router
        ],
    }
    storage.write_json(workdir / JSON_FILE, study, within=workdir)
    about = f"{file}, {study['steps']['last']:,} steps, {len(study['seeds'])} seeds"
    if looks_ahead:
        about += f"; {'routers' if len(looks_ahead) == len(runs) else ', '.join(looks_ahead)} may look at later words"
    pictures = drawing.figures(comparisons, summary.overhead(flops, against), against=against, study=about)
    for name, figure in pictures.items():
        storage.write_bytes(workdir / FIGURES_FOLDER / f"{name}.png", encode(figure, "png"), within=workdir)
    storage.write_text(workdir / TABLES_FILE, tables(study, comparisons, list(pictures)), within=workdir)


def tables(study: Study, comparisons: Summary, pictures: Sequence[str]) -> str:
    """The page for people, in Markdown.

    Args:
      study: what ``study.json`` holds.
      comparisons: of every router, see :func:`vmoe_inform.studies.summary.summarize`.
      pictures: names of the figures in the same folder.
    """
    against, num_seeds = study["against"], len(study["seeds"])
    differences = [found.difference for router, of in comparisons.items() if router != against for found in of.values()]
    sampled = [difference for difference in differences if difference.low < difference.high]
    marked = sum(difference.excludes(0.0) for difference in sampled)
    overrides = " ".join(f"--config.{name}={value}" for name, value in study["overrides"].items())
    config = text.markdown_code(study["config"]) + (f" with {text.markdown_code(overrides)}" if overrides else "")
    reference = text.markdown_code(against)
    sections = [
        f"# {len(comparisons)} routers, {num_seeds} seeds each\n",
        f"Config {config}; {study['steps']['last']:,} training "
        f"steps. Every router was trained with the same seeds, so with the same order of the data.\n",
        *_looking_ahead(study),
        f"A cell is the mean over the seeds, and in brackets the mean difference to {reference} of the same seed, with "
        f"half the width of its {100 * LEVEL:.0f} % interval: Student t over the {num_seeds} paired differences, "
        f"{num_seeds - 1} degree{'s' if num_seeds > 2 else ''} of freedom. An asterisk marks an interval that excludes "
        f"0. The {len(sampled):,} intervals are not corrected for their number: about "
        f"{(1 - LEVEL) * len(sampled):.0f} of them would exclude 0 by chance if no router differed at all; {marked} do."
        " A difference that is the same for all seeds (± 0) is neither counted nor marked: it says nothing of how sure "
        "it is.\n",
        _scores(comparisons, against),
        *_more_metrics(comparisons, against),
        *(_layer(comparisons, against, block) for block in _blocks(comparisons[against])),
        _cost(study),
        *(f"![{name.replace('_', ' ')}]({FIGURES_FOLDER}/{name}.png)\n" for name in pictures),
    ]
    return "\n".join(sections)


def _looking_ahead(study: Study) -> list[str]:
    """What to know of scores whose routers look at later words."""
    routers = ", ".join(map(text.markdown_code, study.get("looks_ahead", ())))
    if not routers:
        return []
    return [
        f"**These routers may look at later words** (`model.allow_future`): {routers}. Their perplexities are not "
        "those of a language model, which sees no later word.\n"
    ]


def _scores(comparisons: Summary, against: str) -> str:
    kinds = {suite: suites_lib.kind(suite) for suite in suites_of(comparisons)}
    columns = {
        text.markdown(kind.short_title): _score_cell(f"score/{suite}", kind.metric) for suite, kind in kinds.items()
    }
    explained = "; ".join(f"{text.markdown(kind.short_title)}: {_explained(kind.metric)}" for kind in kinds.values())
    return f"## Scores\n\n{explained}.\n\n" + _table(comparisons, against, columns)


def _more_metrics(comparisons: Summary, against: str) -> list[str]:
    """A table for each suite that shows more than its headline."""
    sections = []
    for suite in suites_of(comparisons):
        kind = suites_lib.kind(suite)
        measured = {metric for metric in kind.rows if f"metric/{suite}/{metric.name}" in comparisons[against]}
        columns = {
            text.markdown(metric.short_title or metric.title): _score_cell(f"metric/{suite}/{metric.name}", metric)
            for metric in kind.rows
            if metric in measured
        }
        if columns:
            explained = "; ".join(_explained(metric) for metric in kind.rows if metric in measured)
            title = f"## {text.markdown(kind.title)}: more metrics\n\n{explained}.\n\n"
            sections.append(title + _table(comparisons, against, columns))
    return sections


def _explained(metric: Metric) -> str:
    unit = drawing.unit_of(metric).name
    return f"{metric.title}{f' in {unit}' if unit else ''}"


def _score_cell(name: str, metric: Metric) -> Cell:
    unit = drawing.unit_of(metric)
    return _cell(name, unit.scale, unit.form)


def _layer(comparisons: Summary, against: str, block: str) -> str:
    columns = {
        "fluctuation in %": _cell(f"fluctuation/{block}", 100.0, ".1f"),
        "entropy in nats": _cell(f"entropy/{block}", 1.0, ".3f"),
        f"entropy / {text.markdown(against)}'s": _ratio_cell(f"entropy/{block}"),
        "load CV": _cell(f"load_cv/{block}", 1.0, ".2f"),
        "effective neighbours": _cell(f"effective_neighbours/{block}", 1.0, ".2f"),
        "dropped in %": _cell(f"dropped/{block}", 100.0, ".2f"),
    }
    return (
        f"## Routing in {text.markdown(block)}, on the clean test records\n\n"
        "Fluctuation: tokens whose set of experts changed between the two measurements. Entropy: of the probabilities "
        "that experts are selected by, mean over tokens. Load CV: standard deviation over mean of the experts' shares "
        "(0 is perfect balance). Effective neighbours: tokens that a token attends to, itself included (1: no mixing). "
        "Dropped: assignments that found no free slot.\n\n" + _table(comparisons, against, columns)
    )


def _cost(study: Study) -> str:
    lines = [
        "| router | parameters | flops of a training step | overhead | flops of an evaluation batch | overhead |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for router, of in study["routers"].items():
        cells = [f"{of['parameters']:,}"]
        for name in ("training_step", "evaluation_batch"):
            cells += [f"{of['flops'][name]:,.0f}", f"{100 * of['flops_overhead'][name]:+.1f} %"]
        lines.append(f"| {text.markdown_code(router, in_table=True)} | {' | '.join(cells)} |")
    return (
        "## Cost\n\n"
        "As the compiler states it for one device; the body of a loop counts once, however often it runs.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _cell(name: str, scale: float, form: str) -> Cell:
    """Mean and difference of a measure, in units of 1 / scale."""

    def cell(of_router: Mapping[str, Comparison], is_reference: bool) -> str:
        if name not in of_router:
            return "-"
        found = of_router[name]
        mean = f"{scale * found.mean.mean:{form}}"
        return mean if is_reference else f"{mean} ({_interval(found.difference, scale, '+' + form, form, 0.0)})"

    return cell


def _ratio_cell(name: str) -> Cell:
    def cell(of_router: Mapping[str, Comparison], is_reference: bool) -> str:
        ratio = of_router[name].ratio if name in of_router else None
        if ratio is None:
            return "-"
        return "1" if is_reference else _interval(ratio, 1.0, ".3f", ".3f", 1.0)

    return cell


def _interval(interval: Interval, scale: float, form: str, half_form: str, nothing: float) -> str:
    mark = "\\*" if interval.excludes(nothing) else ""
    return f"{scale * interval.mean:{form}} ± {scale * interval.half_width:{half_form}}{mark}"


def _table(comparisons: Summary, against: str, columns: Mapping[str, Cell]) -> str:
    lines = [f"| router | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
    for router, of in comparisons.items():
        cells = [cell(of, router == against) for cell in columns.values()]
        lines.append(f"| {text.markdown_code(router, in_table=True)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def suites_of(comparisons: Summary) -> list[str]:
    """Suites that some router was measured on, in the order in which they are shown."""
    return in_order(
        name.removeprefix("score/") for of in comparisons.values() for name in of if name.startswith("score/")
    )


def _blocks(of_router: Mapping[str, Comparison]) -> list[str]:
    return [name.removeprefix("load_cv/") for name in of_router if name.startswith("load_cv/")]
