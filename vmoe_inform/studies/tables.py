"""The page of a study for people, in Markdown: tables of scores and of each MoE layer, and what marks in them mean."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from vmoe_inform import text
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.headlines import in_order
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.studies import drawing, significance, summary
from vmoe_inform.studies.document import Study
from vmoe_inform.studies.significance import POWER
from vmoe_inform.studies.summary import ALL_LAYERS, LEVEL, Comparison, PairedInterval

FIGURES_FOLDER = "figures"

Summary = Mapping[str, Mapping[str, Comparison]]


@dataclasses.dataclass(frozen=True)
class Column:
    """One measure in a table, in units of 1 / scale.

    Attributes:
      name: of the measure.
      scale, form: numbers are multiplied by the one and shown in the other.
      is_ratio: whether the ratio is shown, and no mean.
    """

    name: str
    scale: float
    form: str
    is_ratio: bool = False

    def cell(self, of_router: Mapping[str, Comparison], *, is_reference: bool) -> str:
        """Mean and difference of a router, or the ratio."""
        effect = self._effect(of_router)
        if effect is None:
            return "-"
        sign = "" if self.is_ratio else "+"
        shown = f"{self.scale * effect.mean:{sign}{self.form}} ± {self.scale * effect.half_width:{self.form}}"
        mark = "\\*" * (2 if effect.survives else int(effect.excludes(1.0 if self.is_ratio else 0.0)))
        if self.is_ratio:
            return "1" if is_reference else f"{shown}{mark}"
        mean = f"{self.scale * of_router[self.name].mean.mean:{self.form}}"
        return mean if is_reference else f"{mean} ({shown}{mark})"

    def detectable(self, others: Sequence[Mapping[str, Comparison]]) -> str:
        """The median of what could have been shown of each router."""
        effects = [effect for of_router in others if (effect := self._effect(of_router)) is not None]
        known = [effect.detectable for effect in effects if effect.detectable is not None]
        return f"{self.scale * statistics.median(known):{self.form}}" if known else "-"

    def _effect(self, of_router: Mapping[str, Comparison]) -> PairedInterval | None:
        if self.name not in of_router:
            return None
        return of_router[self.name].ratio if self.is_ratio else of_router[self.name].difference


def page(study: Study, comparisons: Summary, pictures: Sequence[str]) -> str:
    """The page for people, in Markdown.

    Args:
      study: what was measured.
      comparisons: of every router, see :func:`vmoe_inform.studies.summary.summarize`.
      pictures: names of the figures in the same folder.
    """
    against, num_seeds = study.against, len(study.seeds)
    overrides = " ".join(f"--config.{name}={value}" for name, value in study.overrides.items())
    config = text.markdown_code(study.config) + (f" with {text.markdown_code(overrides)}" if overrides else "")
    sections = [
        f"# {len(comparisons)} routers, {num_seeds} seeds each\n",
        f"Config {config}; {study.steps['last']:,} training "
        f"steps. Every router was trained with the same seeds, so with the same order of the data.\n",
        *_looking_ahead(study),
        _how_to_read(comparisons, against, num_seeds),
        _scores(comparisons, against),
        *_more_metrics(comparisons, against),
        *(_layer(comparisons, against, block) for block in _blocks(comparisons[against])),
        _cost(study),
        *(f"![{name.replace('_', ' ')}]({FIGURES_FOLDER}/{name}.png)\n" for name in pictures),
    ]
    return "\n".join(sections)


def _how_to_read(comparisons: Summary, against: str, num_seeds: int) -> str:
    effects = [
        effect
        for router, of in comparisons.items()
        if router != against
        for name, found in of.items()
        for field, effect in (("difference", found.difference), ("ratio", found.ratio))
        if effect is not None and effect.p_value is not None and summary.is_shown(name, field)
    ]
    excluding = sum(effect.p_value is not None and effect.p_value <= significance.LEVEL for effect in effects)
    surviving = sum(effect.survives for effect in effects)
    reference, degrees = text.markdown_code(against), f"{num_seeds - 1} degree{'s' if num_seeds > 2 else ''}"
    return (
        f"A cell is the mean over the seeds, and in brackets the mean difference to {reference} of the same seed, with "
        f"half the width of its {100 * LEVEL:.0f} % interval: Student t over the {num_seeds} paired differences, "
        f"{degrees} of freedom.\n\n"
        f"- **Two asterisks**: a difference that survives Holm's correction for all comparisons of its table. "
        f"{surviving} of {len(effects):,} do.\n"
        f"- **One asterisk**: the interval excludes 0 (of a ratio 1), but it is not corrected. {excluding - surviving} "
        f"more do; about {significance.LEVEL * len(effects):.0f} of all would by chance if no router differed at all.\n"
        f"- **Last row**: the true difference that {num_seeds} seeds would show in {100 * POWER:.0f} % of such studies "
        f"(t test at 5 %, uncorrected, median over the routers). Smaller ones would mostly go unseen.\n"
        "- A difference that is the same for all seeds (± 0) is neither counted nor marked: how sure it is cannot be "
        "said.\n"
    )


def _looking_ahead(study: Study) -> list[str]:
    """What to know of scores whose routers look at later words."""
    routers = ", ".join(map(text.markdown_code, study.looks_ahead))
    if not routers:
        return []
    return [
        f"**These routers may look at later words** (`model.allow_future`): {routers}. Their perplexities are not "
        "those of a language model, which sees no later word.\n"
    ]


def _scores(comparisons: Summary, against: str) -> str:
    kinds = {suite: suites_lib.kind(suite) for suite in suites_of(comparisons)}
    columns = {
        text.markdown(kind.short_title): _score_column(f"score/{suite}", kind.metric) for suite, kind in kinds.items()
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
            text.markdown(metric.short_title or metric.title): _score_column(f"metric/{suite}/{metric.name}", metric)
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


def _score_column(name: str, metric: Metric) -> Column:
    unit = drawing.unit_of(metric)
    return Column(name, unit.scale, unit.form)


def _layer(comparisons: Summary, against: str, block: str) -> str:
    columns = {
        "fluctuation in %": Column(f"fluctuation/{block}", 100.0, ".1f"),
        "entropy in nats": Column(f"entropy/{block}", 1.0, ".3f"),
        f"entropy / {text.markdown(against)}'s": Column(f"entropy/{block}", 1.0, ".3f", is_ratio=True),
        "load CV": Column(f"load_cv/{block}", 1.0, ".2f"),
        "effective neighbours": Column(f"effective_neighbours/{block}", 1.0, ".2f"),
        "dropped in %": Column(f"dropped/{block}", 100.0, ".2f"),
        "collapsed in %": Column(f"collapsed/{block}", 100.0, ".1f"),
        "margin": Column(f"margin/{block}", 1.0, ".3f"),
    }
    measured = {name for of_router in comparisons.values() for name in of_router}
    columns = {title: column for title, column in columns.items() if column.name in measured}
    where = ", mean over the MoE layers" if block == ALL_LAYERS else f" in {text.markdown(block)}"
    return (
        f"## Routing{where}, on the clean test records\n\n"
        "Fluctuation: tokens whose set of experts changed between the two measurements. Entropy: of the probabilities "
        "that experts are selected by, mean over tokens. Load CV: standard deviation over mean of the experts' shares "
        "(0 is perfect balance). Effective neighbours: tokens that a token attends to, itself included (1: no mixing). "
        "Dropped: assignments that found no free slot. Collapsed: records whose tokens all have one first expert. "
        "Margin: K-th minus (K + 1)-th largest probability, mean over tokens.\n\n"
        + _table(comparisons, against, columns)
    )


def _cost(study: Study) -> str:
    lines = [
        "| router | parameters | flops of a training step | overhead | flops of an evaluation batch | overhead |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    overhead = study.overhead
    for router, of in study.routers.items():
        cells = [f"{of.parameters:,}"]
        for name in ("training_step", "evaluation_batch"):
            cells += [f"{of.flops[name]:,.0f}", f"{100 * overhead[router][name]:+.1f} %"]
        lines.append(f"| {text.markdown_code(router, in_table=True)} | {' | '.join(cells)} |")
    return (
        "## Cost\n\n"
        "As the compiler states it for one device; the body of a loop counts once, however often it runs.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _table(comparisons: Summary, against: str, columns: Mapping[str, Column]) -> str:
    lines = [f"| router | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
    for router, of in comparisons.items():
        cells = [column.cell(of, is_reference=router == against) for column in columns.values()]
        lines.append(f"| {text.markdown_code(router, in_table=True)} | {' | '.join(cells)} |")
    others = [of for router, of in comparisons.items() if router != against]
    if others:
        cells = [column.detectable(others) for column in columns.values()]
        lines.append(f"| *could have shown* | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def suites_of(comparisons: Summary) -> list[str]:
    """Suites that some router was measured on, in the order in which they are shown."""
    return in_order(
        name.removeprefix("score/") for of in comparisons.values() for name in of if name.startswith("score/")
    )


def _blocks(of_router: Mapping[str, Comparison]) -> list[str]:
    """MoE layers, the mean over them first."""
    found = [name.removeprefix("load_cv/") for name in of_router if name.startswith("load_cv/")]
    return sorted(found, key=lambda block: block != ALL_LAYERS)
