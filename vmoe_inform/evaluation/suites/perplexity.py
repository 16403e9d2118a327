"""Perplexity of the test and the validation text, compared with what counting words gives."""

from collections.abc import Mapping

from vmoe_inform.config import LanguageConfig
from vmoe_inform.data.text import ngrams
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.evaluation.paired import Contributions
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites import _ngrams, _text
from vmoe_inform.evaluation.suites.base import TEST_SET, RecordSet, Scores, Suite, TokenLosses
from vmoe_inform.evaluation.suites.registry import register

VALIDATION = "validation"
ROWS = (
    _text.metric("word_perplexity", "perplexity of a word", "of a word"),
    _text.metric("validation_perplexity", "perplexity of the validation text", "validation text"),
    *(_text.metric(name, f"for comparison: {name} counts", f"{name} counts") for name in ngrams.NAMES),
)


@register(
    "perplexity",
    title="Perplexity: how surprising the test text is",
    short_title="perplexity, test text",
    metric=_text.metric("perplexity", "perplexity"),
    rows=ROWS,
    details=(
        Metric("nll", "negative log-likelihood of a token", unit="nats", less_is_better=True),
        _text.metric("validation_word_perplexity", "perplexity of a word of the validation text"),
    ),
    tasks=_text.TASKS,
    sentence="{run} is as unsure of the next of {count} {counted} as if it chose among {value} with equal odds.",
)
def perplexity(config: LanguageConfig) -> Suite:
    """exp of the mean negative log-likelihood; the ends of lines count."""
    test, validation = _text.test_text(config), _text.validation_text(config)
    sets = {TEST_SET: RecordSet(lambda: test)}
    if validation is not None:
        sets[VALIDATION] = RecordSet(lambda: validation)

    def score(_: str, losses: TokenLosses) -> Scores:
        return _text.scores_of(losses)

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        own = scores[TEST_SET]
        tokens = own["tokens"].sum()
        values, errors = {"nll": float(own["nats"].sum() / tokens)}, {}
        values["perplexity"], errors["perplexity"] = _text.perplexity_of(own)
        if validation is not None:
            name = "validation_perplexity"
            values[name], errors[name] = _text.perplexity_of(scores[VALIDATION])
        for prefix, corpus, of_set in (("", test, own), ("validation_", validation, scores.get(VALIDATION))):
            if corpus is not None and of_set is not None and corpus.num_words != len(corpus.ids):
                name = f"{prefix}word_perplexity"
                values[name], errors[name] = _text.perplexity_of(of_set, corpus.num_words)
        return SuiteResult(
            count=int(tokens),
            counted=_text.counted(test),
            metrics={**values, **_ngrams.references(config, test)},
            headline="perplexity",
            scale=_text.PERPLEXITY,
            standard_errors=errors,
            skipped=int(own["skipped"]),
            streams=config.evaluation.batch_size,
        )

    def contributions(scores: Mapping[str, Scores]) -> dict[str, Contributions]:
        found = {"perplexity": _text.contributions_of(scores[TEST_SET])}
        if validation is not None:
            found["validation_perplexity"] = _text.contributions_of(scores[VALIDATION])
        return found

    return Suite("perplexity", sets, score, summarize, test.origin, contributions=contributions)
