"""Types of results.json, with the conditions between their fields."""

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from vmoe_inform import checks

VERSION = 2  # of the schema; older files are read by results_version_1.py

Unit = Literal["share", "ratio", "nats", "number", "images", "perplexity"]
Value: TypeAlias = Annotated[float, checks.Bound(at_least=-1e100, at_most=1e100)]  # whose square and sums are finite
Amount: TypeAlias = Annotated[float, checks.Bound(at_least=0.0, at_most=1e9)]
Perplexity: TypeAlias = Annotated[float, checks.Bound(at_least=1.0, at_most=1e100)]


@dataclasses.dataclass(frozen=True)
class Reliability:
    """A reliability diagram: accuracy over confidence, in bins of the confidence.

    Attributes:
      confidence, accuracy: means of each bin; of an empty one 0.
      count: records of each bin.
      edges: of the bins, one more than there are bins; older files have none.
    """

    confidence: tuple[Amount, ...]
    accuracy: tuple[Amount, ...]
    count: tuple[checks.NonNegativeInt, ...]
    edges: tuple[Amount, ...] = ()

    def __post_init__(self) -> None:
        _check_points("reliability", self.confidence, self.accuracy, self.count)


@dataclasses.dataclass(frozen=True)
class RiskCoverage:
    """Wrong answers over the share of records that get one.

    Attributes:
      coverage: shares of the records.
      risk: the share of errors among the most confident answers to them.
    """

    coverage: tuple[checks.Share, ...]
    risk: tuple[checks.Share, ...]

    def __post_init__(self) -> None:
        _check_points("risk_coverage", self.coverage, self.risk)


def _check_points(field: str, *curves: tuple[float, ...]) -> None:
    if len({len(curve) for curve in curves}) != 1 or not curves[0]:
        raise checks.error(field, "as many points of each kind, at least one", [len(curve) for curve in curves])


@dataclasses.dataclass(frozen=True)
class WorstClass:
    """A class of low accuracy.

    Attributes:
      name: as the data set calls it.
      top1: share of its records that are classified correctly.
      count: its records.
      title: in words; empty where nothing else is known than the name.
    """

    name: str = dataclasses.field(metadata={"key": "class"})
    top1: checks.Share
    count: checks.NonNegativeInt
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Data:
    """The records of a result.

    Attributes:
      place: where they lay, in words.
      fingerprint: of their content, see fingerprints.py.
    """

    place: str
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class AttackFacts:
    """Settings of the attack on images.

    Attributes:
      epsilon: largest change of a pixel, of 255.
      num_steps: along the gradient.
      step_size: of each, of 255; None where one step goes all the way.
      loss: that was made to grow; files of older versions do not say it, as there was no other.
    """

    epsilon: Amount
    num_steps: checks.PositiveInt
    step_size: Amount | None = None
    loss: str = "cross-entropy"


@dataclasses.dataclass(frozen=True)
class Scale:
    """How a headline is read where it is no share.

    Attributes:
      unit: of the number; a perplexity is at least 1.
      less_is_better: as for errors.
    """

    unit: Unit
    less_is_better: bool


SHARE = Scale("share", less_is_better=False)


@dataclasses.dataclass(frozen=True)
class SwapCurve:
    """Perplexity over the share of words that are swapped for an unknown one.

    Attributes:
      share: of the words of each line that the attack is to swap, ascending; 0 is the text as it is.
      swapped: share of all words that it swapped; at least one a line. Marks and the ends of lines count as words.
      perplexity: of the text at each.
    """

    share: tuple[checks.Share, ...]
    swapped: tuple[checks.Share, ...]
    perplexity: tuple[Perplexity, ...]

    def __post_init__(self) -> None:
        _check_points("swapped", self.share, self.swapped, self.perplexity)


@dataclasses.dataclass(frozen=True)
class SuiteResult:
    """Measurements of a suite on one set of records: images, or text.

    Attributes:
      count: records that the headline is computed from; of C each counts once, of O those of no known class.
      counted: what ``count`` counts, such as words; empty for images.
      metrics: value by name of the metric.
      headline: the metric that a reader sees first.
      scale: of the headline; None for a share from 0 to 1, more is better.
      standard_errors: of some metrics, by their names.
      versions: of the metrics that have one, by their names; see metric_registry.py.
      skipped: records that could not be read.
      classes: among which the suite classifies, where these are not all classes of the model.
      origin: of the records, as sources state it; ``"generated"`` where they are not the published ones.
      data: which records these are; None in files of older versions.
      evaluated: when, in ISO format with a time zone; empty in files of older versions.
      attack: on the images, if there was one.
      seed: of what was drawn at random, if anything was.
      top1_by_shots: by number of training images of each class, in decimal digits.
      per_corruption: by corruption, accuracy at each severity.
      reliability, risk_coverage: curves.
      worst_classes: those of lowest accuracy, the worst first.
      swapped: by variant of the attack, see suites/word_swap.py.
      streams: contiguous parts as which text was read side by side, each without context at its beginning.
    """

    count: checks.PositiveInt
    metrics: Mapping[str, Value]
    headline: str = "top1"
    standard_errors: Mapping[str, checks.NonNegativeFloat] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, checks.PositiveInt] = dataclasses.field(default_factory=dict)
    skipped: checks.NonNegativeInt = 0
    classes: checks.PositiveInt | None = None
    origin: str = ""
    data: Data | None = None
    evaluated: str = ""
    attack: AttackFacts | None = None
    seed: int | None = None
    top1_by_shots: Mapping[str, checks.Share] = dataclasses.field(default_factory=dict)
    per_corruption: Mapping[str, tuple[checks.Share, ...]] = dataclasses.field(default_factory=dict)
    reliability: Reliability | None = None
    risk_coverage: RiskCoverage | None = None
    worst_classes: tuple[WorstClass, ...] = ()
    counted: str = ""
    scale: Scale | None = None
    swapped: Mapping[str, SwapCurve] = dataclasses.field(default_factory=dict)
    streams: checks.PositiveInt | None = None

    def __post_init__(self) -> None:
        unit = (self.scale or SHARE).unit
        bound, words = _HEADLINES.get(unit, (checks.Bound(), "a number"))
        if self.headline not in self.metrics or not bound.holds(self.metrics[self.headline]):
            received = self.metrics.get(self.headline, f"only {', '.join(sorted(self.metrics)) or 'no metrics'}")
            raise checks.error(f"metrics.{self.headline}", f"{words}, as it is the headline", received)
        for name, severities in self.per_corruption.items():
            _check_points(f"per_corruption.{name}", severities)
        if not all(shots.isdecimal() for shots in self.top1_by_shots):
            raise checks.error("top1_by_shots", "numbers of images", sorted(self.top1_by_shots))
        if self.evaluated and not _is_date(self.evaluated):
            raise checks.error("evaluated", "a date and time with its zone", self.evaluated)


# What a headline has to be, by its unit, and the same in words.
_HEADLINES: Mapping[str, tuple[checks.Bound, str]] = {
    "share": (checks.Bound(at_least=0.0, at_most=1.0), "a share from 0 to 1"),
    "perplexity": (checks.Bound(at_least=1.0), "a perplexity of at least 1"),
}


def _is_date(text: str) -> bool:
    try:
        return datetime.datetime.fromisoformat(text).utcoffset() is not None
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True)
class LayerRouting:
    """Statistics of a layer's router on the clean test records.

    Attributes:
      entropy: of its probabilities, mean over the tokens, nats.
      load: share of the assignments that each expert gets [E]; zeros where no token has an expert.
      effective_neighbours: tokens over which a token averages, itself included; None where nothing is averaged.
      dropped: share of the assignments for which an expert had no place.
      collapsed: share of the records (images, windows of text) whose tokens all have the same first expert. None in
        files of older versions.
      margin: K-th minus (K + 1)-th largest probability, mean over the tokens. None where no token chooses, or K = E,
        and in files of older versions.
    """

    entropy: Value
    load: tuple[Amount, ...]
    effective_neighbours: Value | None
    dropped: Value
    collapsed: checks.Share | None = None
    margin: Amount | None = None

    def __post_init__(self) -> None:
        if not self.load:
            raise checks.error("load", "a share for each expert", self.load)


@dataclasses.dataclass(frozen=True)
class RouterFacts:
    """Settings of a model's routers.

    Attributes:
      score: name of the score step.
      inform: names of the inform steps.
    """

    score: str
    inform: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """Facts of the evaluated model. Files of older versions have the first two fields only.

    Attributes:
      inputs: ``model.inputs``; None for images.
      vocabulary_size, num_tokens, block, attention_style, attention_span: of models of text.
      allow_future: whether the routers of a causal model of text look at later tokens; None where they do not.
    """

    parameters: int
    router: RouterFacts
    experts: int | None = None
    experts_per_token: int | None = None
    num_classes: int | None = None
    image_size_px: int | None = None
    patch_size_px: int | None = None
    num_layers: int | None = None
    hidden_size: int | None = None
    moe_layers: tuple[int, ...] | None = None
    inputs: str | None = None
    vocabulary_size: int | None = None
    num_tokens: int | None = None
    block: str | None = None
    attention_style: str | None = None
    attention_span: int | None = None
    allow_future: bool | None = None


@dataclasses.dataclass(frozen=True)
class CleanData:
    """The clean test records, which the routing is of.

    Attributes:
      source: ``data.source`` of the config.
      classes_are_imagenet: whether all classes are among ImageNet's.
      place, fingerprint: as of :class:`Data`; None in files of older versions.
    """

    source: str
    classes_are_imagenet: bool = False
    place: str | None = None
    fingerprint: str | None = None


@dataclasses.dataclass(frozen=True)
class Missing:
    """Why a suite cannot be evaluated here.

    Attributes:
      reason: what to put where, or to install or change.
      is_damaged: whether its data are there, but not as they should be.
    """

    reason: str
    is_damaged: bool = False


@dataclasses.dataclass(frozen=True)
class Results:
    """All that is known of a checkpoint.

    Attributes:
      checkpoint_step: training steps that it has.
      config_hash: of the settings that decide the results.
      model: what it is.
      suites: the newest result of each suite, by its name.
      routing: of each MoE layer, by its name.
      seed: of the run; None in files of older versions.
      data: the clean test records; None in files of older versions.
      other_data: by suite, results on other records than those of the newest evaluation.
      missing: by name, suites that were asked for and cannot be evaluated here. They are not written: that is so on
        this machine and today.
      version: of the schema.
    """

    checkpoint_step: checks.NonNegativeInt
    config_hash: str
    model: ModelFacts
    suites: Mapping[str, SuiteResult]
    routing: Mapping[str, LayerRouting]
    seed: int | None = None
    data: CleanData | None = None
    other_data: Mapping[str, tuple[SuiteResult, ...]] = dataclasses.field(default_factory=dict)
    missing: Mapping[str, Missing] = dataclasses.field(default_factory=dict)
    version: int = VERSION
