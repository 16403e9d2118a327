"""Balanced assignment: the experts of all tokens of a group at once, with the same number of tokens for every expert.

The method, for one group. Scores become integers, so that exact steps are exact. A token is *at home* if no other
expert has a larger value - price for it. There are two phases:

1. Prices balance the experts approximately, by Sinkhorn's iteration in float32 at a falling temperature. Each token
   then goes home. These prices affect only the number of rounds of the second phase.
2. Rounds follow until no expert has a token too many. Each moves tokens along one path of experts, from a full one to
   one with room, where the least value is lost. These are successive shortest paths (Ahuja, Magnanti, Orlin,
   *Network Flows*, 1993, Sec. 9.7), here on the E experts only, with many tokens to a path.

Why the result is optimal. Let every token be at home, for any prices, and every expert e have its C tokens. Then any
other balanced assignment b has no larger sum_t (v[t,b_t] - price[b_t]). Both sums pay the same C sum_e price_e. So it
is enough that rounds keep all tokens at home.

Let loss[e,f] be the least that a token of e loses by going to f. Let distance[f] be the length of the shortest path to
f from any expert with a token too many. A shortest path exists, because no cycle of losses is negative. At home means
loss[e,f] >= price[e] - price[f], which sums to zero over a cycle. Shortest means distance[f] <= distance[e] +
loss[e,f]. So every token is at home for the prices -distance, too. On the edges of the path it is an equality. The
tokens that lose just loss[e,f] there are at home at both ends, and may move.

Why it ends. A round takes at least one token from the experts that have too many. It gives no other expert one too
many. So there are at most S (1 - 1/E) + E rounds, for any scores.
"""

import functools
import math

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int

_SMALLEST_TOLERANCE = 1e-6  # below, float32 does not resolve the scores well enough for the bound
_LARGEST = 2**28  # of prices and sums of losses: with E levels below it (see the check) no int32 overflows
_NO_EDGE = 2**29
_SINKHORN_ITERATIONS = 8  # at each temperature


def check_tolerance(tolerance: float, num_experts: int) -> None:
    """Raises ValueError for a tolerance that :func:`balanced_assignment` cannot keep with this many experts."""
    bound = checks.Bound(at_least=max(_SMALLEST_TOLERANCE, num_experts / 2**26), below=1.0)
    if not bound.holds(tolerance):
        raise checks.error("tolerance", f"a number {bound} (for {num_experts} experts)", tolerance)


def balanced_assignment(
    scores: Float[Array, "*batch S E"], *, tolerance: float = 1e-3, real: Bool[Array, "*batch S"] | None = None
) -> Int[Array, "*batch S"]:
    r"""The expert of each token, at most ceil(S / E) tokens to each expert, with the largest total score.

    The assignment of BASE layers (arXiv 2103.16716) during training:

    $$\max_a \sum_t s_{t, a_t} \quad \text{subject to} \quad |\{t : a_t = e\}| = S / E \text{ for all } e$$

    Groups are independent of each other. Adding a number to all scores of one token changes nothing. So logits,
    log-probabilities and dot products give the same. Ties are broken the same way each time. No gradient flows into the
    scores.

    Args:
      scores: s [..., S, E], finite, of any scale.
      tolerance: largest loss per token, at least 1e-6 and E / 2^26 (the limit of the integer arithmetic). The total is
        at least the optimum minus S tolerance R. R is the largest difference between two scores of one real token of
        the group. Small values cost few more rounds, and help where R is that of a few outliers.
      real: [..., S], False for filler; None if all tokens are real. The S' real tokens of a group are assigned as if
        they were alone, at most ceil(S' / E) to each expert. A filler token gets the expert of its own largest score
        and counts nowhere: give it no slot.

    Returns:
      indices [..., S] in 0..E-1, int32.

    Raises:
      ValueError: tolerance not below 1 or too small, scores without the axes S and E or with no expert, or ``real``
        of another shape.
    """
    checks.shape("scores", scores.shape, ("...", "S", "E"))
    num_experts = scores.shape[-1]
    if num_experts < 1:
        raise checks.error("scores", "at least one expert in the last axis", list(scores.shape))
    check_tolerance(tolerance, num_experts)
    if real is None:
        real = jnp.ones(scores.shape[:-1], bool)
    checks.shape("real", real.shape, scores.shape[:-1])
    # Rounding to the nearest level loses half a level for the assignment found, and half for the best one. With levels
    # of R tolerance / 2, half of the bound is left. The float32 operations before it lose less.
    assign = functools.partial(_assign_group, levels=math.ceil(2.0 / tolerance))
    scores = jax.lax.stop_gradient(scores).astype(jnp.float32)
    return jnp.vectorize(assign, signature="(s,e),(s)->(s)")(scores, real)


@functools.partial(jax.jit, static_argnames="levels")
def _assign_group(scores: Float[Array, "S E"], real: Bool[Array, " S"], *, levels: int) -> Int[Array, " S"]:
    """Assigns one group; ``levels`` is the number of steps that R is divided into."""
    num_tokens, num_experts = scores.shape
    num_real = jnp.sum(real)
    capacity = (num_real + num_experts - 1) // num_experts
    # Tokens without a preference fill the spare places, fewer than E. With them every expert gets exactly its
    # capacity, which the proof above needs.
    spare = jnp.arange(num_experts - 1) < capacity * num_experts - num_real
    assigned = jnp.concatenate([real, spare])
    values = jnp.pad(_integer_values(scores, real, levels), ((0, num_experts - 1), (0, 0)))

    prices = _balancing_prices(values, assigned, capacity, levels)
    # An index E means nowhere. NaN becomes some integer here, so that even a diverged router gets an assignment.
    start = jnp.where(assigned, jnp.argmax(values - prices[None, :], axis=-1), num_experts)

    def unbalanced(indices: Int[Array, " T"]) -> Bool[Array, ""]:
        return jnp.any(_counts(indices, num_experts) > capacity)

    indices = jax.lax.while_loop(unbalanced, lambda indices: _move(indices, values, capacity), start)[:num_tokens]
    return jnp.where(real, indices, jnp.argmax(scores, axis=-1)).astype(jnp.int32)


def _integer_values(scores: Float[Array, "S E"], real: Bool[Array, " S"], levels: int) -> Int[Array, "S E"]:
    """Scores as integers from -levels to 0: 0 for a token's best expert, one step for R / levels, 0 for filler."""
    parts = scores / 16  # so that no difference overflows, and no reciprocal of one vanishes
    below_best = jnp.where(real[:, None], parts - jnp.max(parts, axis=-1, keepdims=True), 0.0)
    largest = -jnp.min(below_best, initial=0.0)
    steps = jnp.round(below_best / jnp.where(largest > 0, largest, 1.0) * levels)
    return jnp.clip(steps.astype(jnp.int32), -levels, 0)


def _balancing_prices(
    values: Int[Array, "T E"], assigned: Bool[Array, " T"], capacity: Int[Array, ""], levels: int
) -> Int[Array, " E"]:
    """Prices at which about ``capacity`` tokens prefer each expert, in the units of the values.

    This is Sinkhorn's iteration (Cuturi, arXiv 1306.0895), with the tokens' half of it solved by the softmax. The price
    of an expert rises by temperature * log(its share of the tokens / capacity). The temperature is halved from a
    quarter of R down to one level, where rounding begins.
    """
    temperatures = [levels * 0.5**k for k in range(2, max(2, math.floor(math.log2(levels))) + 1)]

    def raise_prices(prices: Float[Array, " E"], temperature: Float[Array, ""]) -> tuple[Float[Array, " E"], None]:
        shares = jax.nn.softmax((values - prices[None, :]) / temperature, axis=-1)
        demand = jnp.sum(jnp.where(assigned[:, None], shares, 0.0), axis=0)
        excess = jnp.log(jnp.maximum(demand, 1e-30)) - jnp.log(jnp.maximum(capacity, 1).astype(jnp.float32))
        return prices + temperature * excess, None

    schedule = jnp.repeat(jnp.asarray(temperatures, jnp.float32), _SINKHORN_ITERATIONS)
    prices, _ = jax.lax.scan(raise_prices, jnp.zeros(values.shape[-1], jnp.float32), schedule)
    return jnp.clip(jnp.round(prices).astype(jnp.int32), -_LARGEST, _LARGEST)


def _counts(indices: Int[Array, " T"], num_experts: int) -> Int[Array, " E"]:
    return jnp.sum(jax.nn.one_hot(indices, num_experts, dtype=jnp.int32), axis=0)


def _move(indices: Int[Array, " T"], values: Int[Array, "T E"], capacity: Int[Array, ""]) -> Int[Array, " T"]:
    """One round: moves as many tokens as fit along the shortest path from an expert with too many to one with room."""
    num_experts = values.shape[-1]
    counts = _counts(indices, num_experts)
    losses = jnp.take_along_axis(values, indices[:, None], axis=-1, mode="clip") - values  # of going to each expert
    least_losses = jax.ops.segment_min(losses, indices, num_experts)  # drops the tokens that are nowhere
    least_losses = jnp.where(counts[:, None] > 0, least_losses, _NO_EDGE)
    distances, previous = _shortest_paths(least_losses, counts > capacity)
    end = jnp.argmin(jnp.where(counts < capacity, distances, _NO_EDGE))

    # From the end of the path back to its start, which is its own predecessor. following[E] is for tokens nowhere.
    def step_back(state: tuple[Int[Array, " E1"], Int[Array, ""]]) -> tuple[Int[Array, " E1"], Int[Array, ""]]:
        following, expert = state
        return following.at[previous[expert]].set(expert), previous[expert]

    nowhere = jnp.full(num_experts + 1, num_experts)
    following, start = jax.lax.while_loop(lambda state: previous[state[1]] != state[1], step_back, (nowhere, end))

    target = following[indices]
    loss = jnp.take_along_axis(losses, target[:, None], axis=-1, mode="clip")[:, 0]
    least_loss = least_losses.at[indices, target].get(mode="clip")
    may_move = (target < num_experts) & (loss == least_loss)
    leaving = jax.nn.one_hot(jnp.where(may_move, indices, num_experts), num_experts, dtype=jnp.int32)
    candidates = jnp.cumsum(leaving, axis=0)
    on_path = following[:num_experts] < num_experts
    room = jnp.minimum(counts[start] - capacity, capacity - counts[end])
    moved = jnp.minimum(room, jnp.min(jnp.where(on_path, candidates[-1], room)))
    rank = jnp.sum(candidates * leaving, axis=-1)  # 1 for the first candidate of an expert
    return jnp.where(may_move & (rank <= moved), target, indices)


def _shortest_paths(lengths: Int[Array, "E E"], starts: Bool[Array, " E"]) -> tuple[Int[Array, " E"], Int[Array, " E"]]:
    """Bellman and Ford: distance of each node from the nearest start, and the node before it (a start: itself).

    Lengths may be negative, cycles may not, so at most E passes change anything. Only a strictly nearer predecessor
    replaces another, which keeps cycles of length zero out of the paths.
    """

    def relax(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        distances, previous, _ = state
        through = distances[:, None] + lengths  # [before, node]
        nearer = jnp.min(through, axis=0) < distances
        previous = jnp.where(nearer, jnp.argmin(through, axis=0), previous)
        return jnp.minimum(distances, jnp.min(through, axis=0)), previous, jnp.any(nearer)

    unvisited = jnp.where(starts, 0, _NO_EDGE), jnp.arange(len(starts)), jnp.array(True)
    distances, previous, _ = jax.lax.while_loop(lambda state: state[2], relax, unvisited)
    return distances, previous
