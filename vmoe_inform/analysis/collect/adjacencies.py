"""The matrices of experts that routers such as Symphony multiply a token's probabilities with."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform.analysis.layer_results import Adjacency
from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.config import ModelConfig, options_of
from vmoe_inform.routing import spectral_gap
from vmoe_inform.routing.steps import INFORM_STEPS, SCORE_STEPS, SELECT_STEPS
from vmoe_inform.runs.run import SavedRun


def of_run(saved: SavedRun) -> dict[str, Adjacency]:
    """Those of a checkpoint's layers, with spectral gaps at all checkpoints of the run; see :func:`adjacencies`."""
    config = saved.config.model
    if all(INFORM_STEPS[name].adjacency is None for name in config.router.inform_steps):
        return {}
    return adjacencies(config, saved.routing_states(), step=saved.step)


def adjacencies(config: ModelConfig, states: Mapping[int, Tree], *, step: int | None = None) -> dict[str, Adjacency]:
    """By block the matrix that a token's probabilities are multiplied with, and its spectral gap over the training.

    The gap is 1 - the second largest absolute eigenvalue (SymphonySMoE, Proposition 1), of the matrix as the router
    applies it. Entries below the threshold are left out, and experts that were never chosen have identity rows. Layers
    where no step multiplies with such a matrix are left out; where several do, it is their product.

    Args:
      config: of the model.
      states: by training step, the collection ``routing``.
      step: whose matrix is kept; None: the newest.
    """
    found = {}
    for ordinal, layer in enumerate(config.moe_layers):
        block = f"block_{layer}"
        names = [name for name in config.router.inform_steps_of(ordinal) if INFORM_STEPS[name].adjacency is not None]
        if not names:
            continue
        matrices = {step: np.asarray(_matrix(names, config, states[step][block])) for step in sorted(states)}
        shown = matrices[max(matrices) if step is None else step]
        found[block] = Adjacency(
            steps=tuple(matrices),
            spectral_gap=tuple(_spectral_gap(matrix) for matrix in matrices.values()),
            matrix=tuple(map(tuple, shown.tolist())),
        )
    return found


def whole_matrices(config: ModelConfig, states: Tree) -> dict[str, Float[Array, "E E"]]:
    """By block the matrix with which a token's experts follow from its base probabilities alone; for use under ``jit``.

    It is the identity where no step informs. Layers are left out where tokens mix, or a step informs in another way. So
    are those where base probabilities are no softmax, tokens do not take the most probable experts, or K = E.

    Args:
      config: of the model.
      states: the collection ``routing``.
    """
    moe, router, found = config.moe, config.router, {}
    has_choice = SELECT_STEPS[router.select].takes_most_probable and moe.num_selected_experts < moe.num_experts
    if SCORE_STEPS[router.score].affinities is not None or not has_choice:
        return {}
    for ordinal, layer in enumerate(config.moe_layers):
        block = f"block_{layer}"
        acting = [name for name in config.router.inform_steps_of(ordinal) if INFORM_STEPS[name].acts_in(ordinal)]
        if all(INFORM_STEPS[name].adjacency is not None for name in acting):
            found[block] = _matrix(acting, config, states.get(block, {}))
    return found


def _matrix(names: Sequence[str], config: ModelConfig, states: Tree) -> Float[Array, "E E"]:
    product = jnp.eye(config.moe.num_experts)
    for name in names:
        function = INFORM_STEPS[name].adjacency
        assert function is not None
        state = jax.tree.map(jnp.asarray, states["moe"]["router"][name]["state"])
        matrix = function(state, **options_of(config.router, INFORM_STEPS[name]))
        product = jnp.matmul(matrix, product, precision="highest")
    return product


def _spectral_gap(matrix: Float[np.ndarray, "E E"]) -> float:
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # accelerators have no such eigenvalues
        return float(spectral_gap(jnp.asarray(matrix)))
