"""One training step, top to bottom."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vmoe_inform.axes import Array, Tree
from vmoe_inform.config import Config
from vmoe_inform.nn.models import Model
from vmoe_inform.nn.router import STATE
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding.rules import gathered
from vmoe_inform.tasks import Task
from vmoe_inform.training import nonfinite, paths
from vmoe_inform.training.measurements import EXPERT_LOADS

Batch = dict[str, Array]
StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


def make_train_step(
    model: Model,
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: optax.Schedule,
    config: Config,
    total_steps: int,
) -> StepFunction:
    """The function that a run jits.

    Args:
      model, task, optimizer, schedule: what is trained, for what, and how.
      config: train, and what of the optimizer is frozen.
      total_steps: of the run, for what changes over the training.

    Returns:
      ``step(state, batch) -> (state, metrics)``, batches as the task has them; metrics are scalars, and
      the ``expert_loads`` [MoE layers, E].
      All randomness comes from (seed, step). With ``train.max_nonfinite_steps`` > 0 a step whose loss or gradient is
      not finite changes nothing but the step; the metric ``nonfinite_where`` says so, see :func:`nonfinite.where`.
    """
    parts, patterns = config.train.gradient_accumulation_steps, config.optimizer.frozen

    def loss_function(
        trained: Tree, whole: Tree, routing: Tree, progress: Array, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Tree, dict]]:
        params = paths.with_frozen(trained, paths.mask(whole, patterns), whole)
        # The order stays: by it a run continues bit for bit.
        first_key, second_key, routing_key, dropout_key, third_key = jax.random.split(key, 5)
        prepared = task.prepare((first_key, second_key, third_key), batch)
        (outputs, aux), updated = model.apply(
            {"params": gathered(params), STATE: routing},
            prepared["inputs"],
            train=True,
            progress=progress,
            mutable=[STATE],
            rngs={"routing": routing_key, "dropout": dropout_key},
        )
        objective, metrics = task.loss(outputs, prepared)
        loss = objective + aux["auxiliary_loss"]
        return loss, (updated.get(STATE, {}), {"loss": loss} | metrics | routing_metrics(aux["moe"]))

    gradient_function = jax.value_and_grad(loss_function, has_aux=True)

    def gradients_of(state: TrainState, batch: Batch, key: Array) -> tuple[Tree, Tree, dict[str, Array]]:
        frozen, progress = paths.mask(state.params, patterns), state.step.astype(jnp.float32) / total_steps
        trained = paths.trained_part(state.params, frozen)  # what the backward pass is for, and no further
        about = (trained, state.params, state.routing, progress)
        if parts == 1:
            (_, (routing, metrics)), gradients = gradient_function(*about, batch, key)
            return paths.zeros_where_frozen(gradients, frozen, state.params), routing, metrics
        # [B, ...] -> [parts, B / parts, ...]: every part has images from every device
        split = jax.tree.map(lambda a: jnp.swapaxes(a.reshape(-1, parts, *a.shape[1:]), 0, 1), batch)

        def accumulate(total: Tree, part: tuple[Batch, Array]) -> tuple[Tree, dict[str, Array]]:
            # Steps that update a state are not accumulated (config/validate.py): their state passes unchanged.
            (_, (_, metrics)), gradients = gradient_function(*about, *part)
            return jax.tree.map(jnp.add, total, gradients), metrics

        zeros = jax.tree.map(jnp.zeros_like, trained)
        total, metrics = jax.lax.scan(accumulate, zeros, (split, jax.random.split(key, parts)))
        metrics = {name: jnp.mean(values, axis=0) for name, values in metrics.items()}
        means = jax.tree.map(lambda g: g / parts, total)
        return paths.zeros_where_frozen(means, frozen, state.params), state.routing, metrics

    def as_before(new: Tree, old: Tree) -> Tree:
        """The new tree with the old leaves where it is frozen: bit for bit, which adding zero is not."""
        return paths.with_frozen(new, paths.mask(new, patterns), old)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        gradients, routing, metrics = gradients_of(state, batch, key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, step=state.step)
        params = as_before(optax.apply_updates(state.params, updates), state.params)
        routing = as_before(routing, state.routing)
        ema_params = state.ema_params
        if ema_params is not None:
            averages = optax.incremental_update(params, ema_params, 1.0 - config.train.ema_decay)
            ema_params = as_before(averages, ema_params)
        where = nonfinite.where(metrics["loss"], gradients)
        metrics |= {"gradient_norm": optax.tree.norm(gradients), "learning_rate": schedule(state.step)}
        metrics[nonfinite.WHERE] = where
        after = TrainState(state.step + 1, state.seed, params, opt_state, routing, ema_params)
        if config.train.max_nonfinite_steps > 0:
            after = nonfinite.choose(where < 0, after, dataclasses.replace(state, step=state.step + 1))
        return after, metrics

    return train_step


def routing_metrics(layers: dict[str, Any]) -> dict[str, Array]:
    """What the log says of routing, from the model's ``aux["moe"]``: each loss by name (mean over layers and groups,
    without its weight), of each layer the share of dropped assignments and the entropy in nats, and the experts' shares
    of the assignments [MoE layers, E], which :mod:`vmoe_inform.training.measurements` sums up."""
    metrics: dict[str, Array] = {}
    for name in sorted({loss for layer in layers.values() for loss in layer["losses"]}):
        values = [jnp.mean(layer["losses"][name]) for layer in layers.values() if name in layer["losses"]]
        metrics[f"losses/{name}"] = jnp.mean(jnp.stack(values))
    for block, layer in layers.items():
        metrics[f"routing/{block}/dropped"] = layer["dropped"]
        metrics[f"routing/{block}/entropy"] = layer["entropy"]
    if layers:
        metrics[EXPERT_LOADS] = jnp.stack([layer["load"] for layer in layers.values()])
    return metrics
