"""Scores of runs compared with those that papers report for the same model."""

import dataclasses
from collections.abc import Iterator, Mapping

from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.headlines import Estimate, headline, with_interval
from vmoe_inform.evaluation.results import Results
from vmoe_inform.evaluation.suites.c import GENERATED
from vmoe_inform.report import language_papers, papers
from vmoe_inform.report.entries import entries_of, title


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """One score of a run, compared with a paper's.

    Attributes:
      run, title: which run on which images, their origin included.
      score: of the run.
      model: what the paper calls its model.
      published: its score in %, or the perplexity.
      difference: the run's minus the paper's, in percentage points or perplexity; None where the data are not the
        paper's.
      warning: what is not as in the paper; may be empty.
      source: the paper, and where in it.
    """

    run: str
    title: str
    score: Estimate
    model: str
    published: float
    difference: float | None
    warning: str
    source: str


def published(result: Results, suite: str) -> float | None:
    """The first paper's figure for the suite; None where the run has none, or has one for other images."""
    for of_text in language_papers.models_of(result):
        for (its_suite, metric), value in language_papers.published(result, of_text).items():
            if its_suite == suite and metric == result.suites[suite].headline:
                return value
    if suite not in result.suites or result.suites[suite].origin == GENERATED:
        return None
    return next((model.top1[suite] for model in papers.models_of(result) if suite in model.top1), None)


def paper_rows(results: Mapping[str, Results]) -> list[PaperRow]:
    """Every score of every run that a paper reports for the same model.

    A score on generated images is shown without a difference: they are not the images of the paper.
    """
    rows: list[PaperRow] = []
    for run, result in results.items():
        rows += _language_rows(run, result)
        for model in papers.models_of(result):
            for suite, figure in model.top1.items():
                entry = entries_of({run: result}, suite).get(run)
                if entry is None:
                    continue
                score, generated = headline(entry), entry.origin == GENERATED
                warning = "generated images, not those of the paper" if generated else ""
                if not generated and score.count != papers.NUM_IMAGES[suite]:
                    warning = f"over {score.count:,} of {papers.NUM_IMAGES[suite]:,} images"
                rows.append(
                    PaperRow(
                        run=run,
                        title=title({run: result}, suite),
                        score=score,
                        model=model.name,
                        published=figure,
                        difference=None if generated else round(100 * score.value - figure, 2) + 0.0,  # not -0.0
                        warning=warning,
                        source=model.source,
                    )
                )
    return rows


def _language_rows(run: str, result: Results) -> Iterator[PaperRow]:
    for model in language_papers.models_of(result):
        for (suite, metric), value in language_papers.published(result, model).items():
            score = with_interval(result.suites[suite], metric, "perplexity")
            text = "validation text" if metric.startswith("validation") else "test text"
            yield PaperRow(
                run=run,
                title=f"{suites_lib.kind(suite).short_title.partition(',')[0]}, {text}",
                score=score,
                model=model.name,
                published=value,
                difference=round(score.value - value, 2) + 0.0,  # not -0.0
                warning=language_papers.warning(result, model),
                source=model.source,
            )


def not_compared(results: Mapping[str, Results]) -> list[tuple[str, str]]:
    """(run, what it differs in) for the runs on ImageNet's classes or WikiText that are of no model of the papers."""
    found = {
        run: [*(papers.differences(result) if papers.applies(result) else []), *language_papers.differences(result)]
        for run, result in results.items()
    }
    return [(run, "; ".join(differences)) for run, differences in found.items() if differences]
