"""One MoE layer in analysis.json: dataclasses whose fields are the keys there, as in results.py.

What is None was not asked for, or has no meaning for the router.
"""

import dataclasses

from vmoe_inform import checks

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MEDIAN = QUANTILES.index(0.5)

Row = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Spread:
    """A quantity's distribution over tokens.

    Attributes:
      mean: over tokens.
      quantiles: at :data:`QUANTILES`, interpolated in bins of about a thousandth.
    """

    mean: float
    quantiles: Row


@dataclasses.dataclass(frozen=True)
class TokenGraph:
    """How far tokens attend to each other.

    Attributes:
      effective_neighbours: exp(entropy) of a row of the graph; 1 is the token alone.
      self_weight: weight of the token itself.
    """

    effective_neighbours: Spread
    self_weight: Spread


@dataclasses.dataclass(frozen=True)
class Keys:
    """Which keys win the rows of a token graph: those with the largest weight of a row.

    Attributes:
      squares: mean squared length of what a token is compared with as a key, by group. The first group has the shortest
        keys of each sequence. Of the attention posterior it is the length of the mean of a head.
      share: of the rows of the sequence that a key of the group wins, the mean.
      even: what it would be if all keys won alike.
      largest: share of the key that wins most, the mean over sequences.
    """

    squares: Row
    share: Row
    even: float
    largest: checks.Share


@dataclasses.dataclass(frozen=True)
class Margin:
    """Histogram of the K-th minus the (K + 1)-th largest probability.

    Attributes:
      edges: of the bars.
      counts: tokens of each.
      quantiles: as of :class:`Spread`.
      mean: over tokens; None in older files.
    """

    edges: Row
    counts: tuple[int, ...]
    quantiles: Row
    mean: float | None = None

    @property
    def median(self) -> float:
        return self.quantiles[_MEDIAN]


@dataclasses.dataclass(frozen=True)
class Flips:
    """Tokens that a change of the probabilities could send to other experts.

    Attributes:
      perturbation: largest change of a probability.
      share: of the tokens, for each.
    """

    perturbation: Row
    share: Row


@dataclasses.dataclass(frozen=True)
class Specialisation:
    """Which experts work on which class.

    Attributes:
      mutual_information: of class and expert.
      class_entropy, expert_entropy: of the assignments.
      share: of the class's assignments, by class and expert.
    """

    mutual_information: float
    class_entropy: float
    expert_entropy: float
    share: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Adjacency:
    """The matrix of experts that a token's probabilities are multiplied with.

    Attributes:
      steps: of training.
      spectral_gap: at each of them.
      matrix: [E, E], at the step that was looked at.
    """

    steps: tuple[int, ...]
    spectral_gap: Row
    matrix: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Tokens that provably keep their experts while their base probabilities change by some length (Euclidean).

    Attributes:
      rho: of :func:`vmoe_inform.routing.difference_norm`; 1 of a plain router.
      length: of the change.
      by_margin: share of the tokens, for each, by SymphonySMoE's Proposition 1.
      by_pairs: the same by the rows of each pair of experts, which is the most that can be certified.
    """

    rho: float
    length: Row
    by_margin: Row
    by_pairs: Row


@dataclasses.dataclass(frozen=True)
class Layer:
    """One MoE layer.

    Attributes:
      entropy: mean over tokens.
      base_entropy: the same of the router's own logits.
      load: share of the assignments by expert, before any is dropped.
      load_cv: its standard deviation over its mean.
      dropped: share of the assignments that get no slot.
      graph: None where tokens do not attend to each other.
      margin, flips: None where no token chooses, or K = E.
      specialisation: of experts in classes; None where there are none.
      adjacency: None where no step multiplies with a matrix of experts.
      keys: None where the keys of the graph have no lengths, and in older files.
      collapsed: share of the records whose tokens all have the same first expert; None in older files.
      certificate: None as ``margin``, where a token's experts depend on more than its own base probabilities, and in
        older files.
    """

    entropy: float
    base_entropy: float
    load: Row
    load_cv: float
    dropped: float
    graph: TokenGraph | None
    margin: Margin | None
    flips: Flips | None
    specialisation: Specialisation | None
    adjacency: Adjacency | None = None
    collapsed: checks.Share | None = None
    certificate: Certificate | None = None
    keys: Keys | None = None
