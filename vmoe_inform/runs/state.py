"""Everything a training step reads and writes, as one pytree."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vmoe_inform.axes import Array, Int, Tree, UInt
from vmoe_inform.nn import models
from vmoe_inform.nn.models import Model


@flax.struct.dataclass
class TrainState:
    """State of a run between two steps.

    Attributes:
      step: optimizer steps done.
      seed: of all randomness. It is data, so that the compiled programs of two seeds are the same.
      params: float32 parameters.
      opt_state: the optimizer's state.
      routing: states of the routers' steps (Symphony's adjacency), ``{}`` if there are none.
      ema_params: moving average of the parameters, None if it is off.
      memory: what the model carries from a batch to the next one, by row [B, ...]; None if it carries nothing.
    """

    step: Int[Array, ""]
    seed: UInt[Array, ""]
    params: Tree
    opt_state: optax.OptState
    routing: Tree
    ema_params: Tree | None
    memory: Tree | None = None

    def variables(self, *, averaged: bool = False) -> dict[str, Tree]:
        """What ``model.apply`` takes.

        Args:
          averaged: with the moving average in place of the parameters, if there is one.
        """
        params = self.ema_params if averaged and self.ema_params is not None else self.params
        return {"params": params} | ({"routing": self.routing} if self.routing else {})


def create(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    seed: UInt[Array, ""],
    ema: bool,
    memory: Tree | None = None,
) -> TrainState:
    """The state before the first step. Pure: run it under ``jit`` to have it made where it will live.

    Args:
      model: from :func:`vmoe_inform.nn.models.from_config`.
      optimizer: see :mod:`vmoe_inform.training.optimizer`.
      seed: of the parameters, and of all noise in training.
      ema: whether a moving average is kept.
      memory: see :class:`TrainState`, as it is before the first batch.
    """
    variables = models.initialize(model, jax.random.key(seed))
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=seed,
        params=params,
        opt_state=optimizer.init(params),
        routing=variables.get("routing", {}),
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
        memory=memory,
    )
