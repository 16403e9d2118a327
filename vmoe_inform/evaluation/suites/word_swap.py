"""Perplexity of a text some of whose words are swapped for an unknown one, as the papers attack WikiText-103.

Two variants: ``text`` swaps words of the text, as in the papers, so that a model also has to predict the unknown
words. ``inputs`` gives the model the swapped words and asks for the words of the text as it is.
"""

import functools
from collections.abc import Callable, Mapping

from vmoe_inform.config import LanguageConfig
from vmoe_inform.data.text import word_swap
from vmoe_inform.data.text.corpora import Corpus
from vmoe_inform.evaluation.paired import Contributions
from vmoe_inform.evaluation.results import SuiteResult, SwapCurve
from vmoe_inform.evaluation.suites import _text
from vmoe_inform.evaluation.suites.base import TEST_SET, RecordSet, Scores, Suite, TokenLosses
from vmoe_inform.evaluation.suites.registry import register

VARIANTS: tuple[word_swap.Variant, ...] = ("text", "inputs")
_CLEAN_VALIDATION = "validation"
# Of the smallest share; the curves have the others.
_INPUTS = _text.metric("inputs_perplexity", "words of the text as it is, predicted from swapped ones", "inputs only")
_VALIDATION = _text.metric("validation_perplexity", "the validation text, attacked alike", "validation text")


@register(
    "word_swap",
    title="Word swap: words of every line replaced by an unknown one",
    short_title="word swap",
    metric=_text.metric("perplexity", "perplexity"),
    rows=(_INPUTS, _VALIDATION),
    tasks=_text.TASKS,
)
def swapped_words(config: LanguageConfig) -> Suite:
    """The headline is that of the smallest share, of the variant ``text``."""
    splits = {"": _text.test_text(config)}
    if (validation := _text.validation_text(config)) is not None:
        splits["validation_"] = validation
    shares, seed = sorted(config.evaluation.swap_shares), config.evaluation.swap_seed
    sets = {TEST_SET: RecordSet(lambda: splits[""])}
    if validation is not None:
        sets[_CLEAN_VALIDATION] = RecordSet(lambda: validation)
    attacks: dict[str, Callable[[], word_swap.Attacked]] = {}
    for prefix, corpus in splits.items():
        for variant in VARIANTS:
            for share in shares:
                settings = {"share": share, "seed": seed, "variant": variant}
                attack = functools.partial(word_swap.attack, corpus, share=share, seed=seed, variant=variant)
                name = _name(prefix, variant, share)
                attacks[name] = functools.cache(attack)
                sets[name] = RecordSet(functools.partial(_corpus, attacks[name]), settings=settings)

    def score(_: str, losses: TokenLosses) -> Scores:
        return _text.scores_of(losses)

    named = {
        "perplexity": _name("", "text", shares[0]),
        _INPUTS.name: _name("", "inputs", shares[0]),
        _VALIDATION.name: _name("validation_", "text", shares[0]),
    }

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        clean = {"": TEST_SET, "validation_": _CLEAN_VALIDATION}
        curves = {}
        for prefix, corpus in splits.items():
            for variant in VARIANTS:
                names = [_name(prefix, variant, share) for share in shares]
                values = (_text.perplexity_of(scores[name])[0] for name in (clean[prefix], *names))
                swapped = (attacks[name]().num_swapped / corpus.num_words for name in names)
                curves[f"{prefix}{variant}"] = SwapCurve((0.0, *shares), (0.0, *swapped), tuple(values))
        found = {name: _text.perplexity_of(scores[of_set]) for name, of_set in named.items() if of_set in scores}
        return SuiteResult(
            count=int(scores[named["perplexity"]]["tokens"].sum()),
            counted=_text.counted(splits[""]),
            metrics={name: value for name, (value, _) in found.items()},
            headline="perplexity",
            scale=_text.PERPLEXITY,
            standard_errors={name: error for name, (_, error) in found.items()},
            seed=seed,
            swapped=curves,
            streams=config.evaluation.batch_size,
        )

    def made_from() -> list[Corpus]:
        return list(splits.values())

    def contributions(scores: Mapping[str, Scores]) -> dict[str, Contributions]:
        return {name: _text.contributions_of(scores[of_set]) for name, of_set in named.items() if of_set in scores}

    return Suite("word_swap", sets, score, summarize, splits[""].origin, made_from, contributions=contributions)


def _name(prefix: str, variant: str, share: float) -> str:
    return f"{prefix}{variant}/{share:g}"


def _corpus(attack: Callable[[], word_swap.Attacked]) -> Corpus:
    return attack().corpus
