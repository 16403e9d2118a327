"""What each MoE layer leaves when a model is applied, as one typed record a layer."""

from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.analysis.collect.traces import LayerTrace
from vmoe_inform.axes import Array, Bool
from vmoe_inform.config import ModelConfig
from vmoe_inform.evaluation.runner import Applied
from vmoe_inform.nn.router import tokens_choose
from vmoe_inform.routing import topk_margin
from vmoe_inform.routing.steps import SCORE_STEPS
from vmoe_inform.tasks.task import Batch

# What a record may hold besides the token graph, which is by far the largest.
FIELDS = ("base", "informed", "base_indices", "indices", "weights", "load", "dropped", "margin")
GRAPH = "graph"


def records(trace: Mapping[str, Any], config: ModelConfig) -> dict[str, LayerTrace]:
    """Full records by block, for use under ``jit``: what is not used is not computed.

    Args:
      trace: what the MoE layers left by block, in a model's call with the collection ``intermediates``.
      config: of the model.
    """
    return {block: _record(trace[block]["moe"], config) for block in block_names(config)}


def real_tokens(found: Applied, batch: Batch, config: ModelConfig) -> Bool[Array, "B N"]:
    """Which tokens of a batch of evaluation count: none of filler."""
    if found.counted is not None:
        return found.counted
    mask = batch["mask"]
    return jnp.broadcast_to(mask[:, None], (len(mask), config.num_tokens))


def _record(left: Mapping[str, Any], config: ModelConfig) -> LayerTrace:
    """The record of what :class:`vmoe_inform.nn.moe.MoeLayer` left; its arrays are on the devices."""
    routing = left["routing"]
    informed = routing.normalized
    found: dict[str, Any] = {name: left[name] for name in ("indices", "weights", "load", "dropped")}
    if tokens_choose(config.router):
        found["margin"] = topk_margin(left["preferences"], routing.base_indices.shape[-1])
    found |= {"base": SCORE_STEPS[config.router.score].shares(routing.logits), "informed": informed}
    return LayerTrace(base_indices=routing.base_indices, graph=routing.graph, key_squares=routing.key_squares, **found)


def block_names(config: ModelConfig) -> list[str]:
    """Names of the blocks with a MoE layer, in order."""
    return [f"block_{layer}" for layer in config.moe_layers]


def kept_fields(config: ModelConfig, keep: Collection[str] | None) -> tuple[str, ...]:
    """The fields of a record that are kept, of those that the router has.

    Args:
      config: of the model.
      keep: their names; None: all that there are but the graph.

    Raises:
      ValueError: a name that is none, or that the router does not have.
    """
    there = tuple(name for name in FIELDS if name != "margin" or tokens_choose(config.router))
    if keep is None:
        return there
    for name in keep:
        if name not in FIELDS:
            more = " (the token graph: graphs=True)" if name == GRAPH else ""
            raise checks.error("keep", f"names among {', '.join(FIELDS)}{more}", name)
        if name not in there:
            raise checks.error(
                "keep", f"no margins with model.router.select = {config.router.select!r}, where no token chooses", name
            )
    return tuple(name for name in there if name in keep)
