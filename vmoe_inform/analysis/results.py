"""The content of analysis.json, from which every figure can be drawn: dataclasses whose fields are the keys there.

Shares are between 0 and 1, entropies in nats, probabilities those that experts are chosen by unless said otherwise.
``block`` is a MoE layer's name in the model. What is None was not asked for, or has no meaning for the router.
"""

import dataclasses
from collections.abc import Mapping

from vmoe_inform import checks
from vmoe_inform.analysis.layer_results import Layer, Row
from vmoe_inform.evaluation.metric_registry import METRICS

VERSION = 3  # of the schema


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What was looked at.

    Attributes:
      name: of the run.
      step: of the checkpoint.
      router: its steps in words.
      num_experts, num_selected_experts: E and K.
      num_tokens: N, of a sequence.
      layers: blocks with a MoE layer.
      suite: which records, as ``--suite`` names them: ``"clean"``, ``"c:NAME:SEVERITY"``, ...
      unit: what a record is, in the plural: ``"images"``, ``"windows"``.
      count: of records.
      metric: of the score: ``"top1"``, ``"perplexity"``.
      score: of the records, by which the run's task is known.
      looks_ahead: whether routers of a causal model may look at later tokens (``model.allow_future``).
    """

    name: str
    step: checks.NonNegativeInt
    router: str
    num_experts: checks.PositiveInt
    num_selected_experts: checks.PositiveInt
    num_tokens: checks.PositiveInt
    layers: tuple[str, ...]
    suite: str
    unit: str
    count: checks.NonNegativeInt
    metric: str
    score: float
    looks_ahead: bool = False

    @property
    def score_in_words(self) -> str:
        """Such as ``"top-1 accuracy 91.0 %"``."""
        ahead = ", with routers that look ahead" if self.looks_ahead else ""
        return score_in_words(self.metric, self.score) + ahead


def score_in_words(name: str, value: float) -> str:
    """A metric and its value as a reader sees them: shares in %, by the titles of all metrics."""
    if name not in METRICS:
        return f"{name} {value:.4g}"
    metric = METRICS[name]
    return f"{metric.title} {100 * value:.1f} %" if metric.unit == "share" else f"{metric.title} {value:.4g}"


@dataclasses.dataclass(frozen=True)
class Change:
    """Share of the tokens of a layer whose choice changed.

    Attributes:
      set: the K experts are not the same set.
      first: the first choice is another.
    """

    set: checks.Share
    first: checks.Share


@dataclasses.dataclass(frozen=True)
class Fluctuation:
    """Changes from one checkpoint to another on the same records, by block."""

    from_step: int
    to_step: int
    layers: Mapping[str, Change]


@dataclasses.dataclass(frozen=True)
class OtherLayer:
    """The same MoE layer of the run compared with.

    Attributes:
      entropy_ratio: this run's entropy over the other's; None if that is 0.
      entropy, load_cv, load, dropped: the other's, as of :class:`Layer`; the last two are None in files of version 1.
    """

    entropy_ratio: float | None
    entropy: float
    load_cv: float
    load: Row | None = None
    dropped: float | None = None


@dataclasses.dataclass(frozen=True)
class OtherRun:
    """The run compared with, which was shown the same records.

    Attributes:
      run: what it is.
      layers: by block.
      fluctuation: None if one of its checkpoints was looked at.
    """

    run: RunFacts
    layers: Mapping[str, OtherLayer]
    fluctuation: Fluctuation | None = None


@dataclasses.dataclass(frozen=True)
class Certified:
    """What certificates of a layer's clean tokens say of changed ones, by corruption and severity.

    Attributes:
      length: of the change of a token's base probabilities, mean over tokens.
      by_margin, by_pairs: share of the tokens that provably keep their experts, each for its own change, as of
        :class:`Certificate`.
    """

    length: tuple[Row, ...]
    by_margin: tuple[Row, ...]
    by_pairs: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Corruptions:
    """The effect of each corruption.

    Attributes:
      names, severities: of the corruptions.
      top1: accuracy, by corruption and severity.
      clean_top1: on the same images without corruption.
      rerouted: share of the tokens with another set of experts than on the clean image, by block, then as ``top1``.
      certified: by block, of layers that have a :class:`Certificate`.
    """

    names: tuple[str, ...]
    severities: tuple[int, ...]
    top1: tuple[Row, ...]
    clean_top1: checks.Share
    rerouted: Mapping[str, tuple[Row, ...]]
    certified: Mapping[str, Certified] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SwappedWords:
    """The effect of words that are swapped for an unknown one in what a language model reads.

    The words that it predicts are those of the text as it is.

    Attributes:
      share: of the words of each line, ascending.
      score: of the text, for each; ``clean_score`` without swaps. What it is called is in :class:`RunFacts`.
      rerouted: share of the tokens with another set of experts than without swaps, by block, for each.
      certified: by block, of layers that have a :class:`Certificate`; a single row over the shares.
    """

    share: Row
    score: Row
    clean_score: float
    rerouted: Mapping[str, Row]
    certified: Mapping[str, Certified] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What a run's routers do.

    Attributes:
      run: what was looked at.
      layers: by block.
      class_names: of the labels; empty where there are none.
      fluctuation: from an earlier checkpoint of the run.
      against: another run.
      corruptions: all of them.
      swapped_words: None unless asked for, and in older files.
      version: of the schema.
    """

    run: RunFacts
    layers: Mapping[str, Layer]
    class_names: tuple[str, ...]
    fluctuation: Fluctuation | None = None
    against: OtherRun | None = None
    corruptions: Corruptions | None = None
    swapped_words: SwappedWords | None = None
    version: int = VERSION


def layer_name(block: str) -> str:
    """A block of :class:`Analysis` for a reader: ``"block_11"`` -> ``"block 11"``."""
    return block.replace("_", " ")
