"""Token graphs, posteriors and adjacency as routers compute them, against the graphs written out."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import routing
from vmoe_inform.axes import Array, Tree
from vmoe_inform.performance.accelerator.comparing import Function, Path
from vmoe_inform.performance.accelerator.sizes import Sizes

_SIGMA = 4.0  # so that evidence and prior both count


def paths(sizes: Sizes) -> list[Path]:
    """Each for all tokens and for the tokens before; in blocks of rows. Routers compute in float32 alone."""
    block = sizes.tokens // 2
    make = functools.partial(_inputs, sizes)
    found = []
    for mask in (None, "causal"):
        for name, fast, reference in (
            ("similarity", _similarity(mask, block), _similarity_written_out(mask)),
            ("posterior", _posterior(mask, block), _posterior_written_out(mask)),
        ):
            words = f"{'causal, ' if mask else ''}blocks of {block}"
            found.append(Path(name, words, "graph of all tokens", make, _as_it_is(fast), reference))
    found.append(_adjacency(sizes))
    return found


def _as_it_is(function: Function) -> Callable[[str], Function]:
    return lambda dtype: function


def _inputs(sizes: Sizes, random: np.random.Generator) -> Tree:
    batch, tokens, heads, width = sizes.images, sizes.tokens, sizes.heads, sizes.width // sizes.heads
    logits = random.normal(size=(batch, tokens, sizes.experts))
    return {
        "probabilities": np.exp(logits) / np.exp(logits).sum(-1, keepdims=True),
        "queries": random.normal(size=(batch, heads, tokens, width)),
        "keys": random.normal(size=(batch, heads, tokens, width)),
        "means": random.normal(size=(batch, heads, tokens, width)),
        "outputs": random.normal(size=(batch, tokens, width)),
    }


def _allowed(mask: str | None, tokens: int) -> Array:
    everything = jnp.ones((tokens, tokens), bool)
    return jnp.tril(everything) if mask == "causal" else everything


def _similarity(mask: Any, block: int) -> Function:
    def function(inputs: Tree) -> Array:
        return routing.similarity_informed(
            inputs["probabilities"], inputs["outputs"], temperature="sqrt_dim", mask=mask, block_size=block
        )

    return function


def _similarity_written_out(mask: str | None) -> Function:
    def function(inputs: Tree) -> Array:
        tokens = inputs["outputs"]
        products = jnp.einsum("bid,bjd->bij", tokens, tokens) / tokens.shape[-1] ** 0.5
        products = jnp.where(_allowed(mask, tokens.shape[1])[None], products, -jnp.inf)
        return jnp.einsum("bij,bje->bie", jax.nn.softmax(products), inputs["probabilities"])

    return function


def _posterior(mask: Any, block: int) -> Function:
    def function(inputs: Tree) -> Array:
        return routing.attention_informed(**inputs, sigma=_SIGMA, heads="posterior", mask=mask, block_size=block)

    return function


def _posterior_written_out(mask: str | None) -> Function:
    """All heads' joint distribution of head and token, from the densities themselves."""

    def function(inputs: Tree) -> Array:
        queries, keys, means, outputs = (inputs[name] for name in ("queries", "keys", "means", "outputs"))
        logits = jnp.einsum("bhif,bhjf->bhij", queries, keys) / queries.shape[-1] ** 0.5
        logits = jnp.where(_allowed(mask, logits.shape[-1])[None, None], logits, -jnp.inf)
        distances = jnp.sum((outputs[:, None, :, None] - means[:, :, None]) ** 2, axis=-1)
        log_joint = jax.nn.log_softmax(logits) - distances / (2 * _SIGMA**2)  # [B, H, N, N]
        largest = jax.lax.stop_gradient(jnp.max(log_joint, axis=(1, 3), keepdims=True))
        joint = jnp.sum(jnp.exp(log_joint - largest), axis=1)
        graph = joint / jnp.sum(joint, axis=-1, keepdims=True)
        return jnp.einsum("bij,bje->bie", graph, inputs["probabilities"])

    return function


def _adjacency(sizes: Sizes) -> Path:
    """Symphony: counts of experts that are chosen together, their moving average, and what it makes of a choice."""
    experts = sizes.experts
    scores = np.random.default_rng(1).normal(size=(sizes.images, sizes.tokens, experts))
    chosen = np.argsort(-scores, axis=-1)[..., :2]
    counts = np.zeros((experts, experts))
    for pair in chosen.reshape(-1, 2):
        counts[np.ix_(pair, pair)] += 1
    before = jnp.asarray(np.random.default_rng(2).uniform(size=(experts, experts)), jnp.float32)

    def fast(inputs: Tree) -> tuple[Array, Array]:
        found = routing.coselection_counts(jnp.asarray(chosen, jnp.int32), experts)
        adjacency = routing.update_adjacency(before, found, decay=0.9)
        return adjacency, routing.expert_informed(inputs["probabilities"], adjacency)

    def reference(inputs: Tree) -> tuple[Array, Array]:
        rows = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        adjacency = 0.9 * before + 0.1 * jnp.asarray(rows, jnp.float32)
        probabilities = inputs["probabilities"]
        return adjacency, jnp.sum(adjacency[None, None] * probabilities[:, :, None], axis=-1)

    def make(random: np.random.Generator) -> Tree:
        return {"probabilities": random.uniform(size=(sizes.images, sizes.tokens, experts))}

    return Path("adjacency", "products", "loop over tokens", make, _as_it_is(fast), reference)
