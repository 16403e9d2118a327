"""One training step, top to bottom."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.config import Config
from vmoe_inform.nn.models import Model
from vmoe_inform.nn.step_variables import OBSERVED, STATE, update_states
from vmoe_inform.routing.steps import Duration
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding.rules import gathered
from vmoe_inform.tasks import Task
from vmoe_inform.training import nonfinite, paths
from vmoe_inform.training.measurements import EXPERT_LOADS

Batch = dict[str, Array]
StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


class Left(NamedTuple):
    """What the forward pass leaves besides the loss.

    Attributes:
      observed: sums that the routers' steps observed.
      memory: for the next batch, see :class:`vmoe_inform.runs.state.TrainState`.
      metrics: scalars by name, and the expert loads.
    """

    observed: Tree
    memory: Tree | None
    metrics: dict[str, Array]


class Shares(NamedTuple):
    """What a part of a batch counts in means over the parts: 1 on average. None: as much as the others.

    Attributes:
      examples: for what is a mean over examples.
      tokens: for what is a mean over tokens.
    """

    examples: Float[Array, ""] | None
    tokens: Float[Array, ""] | None


_WHOLE = Shares(None, None)


def make_train_step(
    model: Model,
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: optax.Schedule,
    config: Config,
    duration: Duration,
) -> StepFunction:
    """The function that a run jits.

    Args:
      model, task, optimizer, schedule: what is trained, for what, and how.
      config: train, and what of the optimizer is frozen.
      duration: of the run, for what changes over the training.

    Returns:
      ``step(state, batch) -> (state, metrics)``, batches as the task has them; metrics are scalars, and
      the ``expert_loads`` [MoE layers, E].
      All randomness comes from (seed, step). With ``train.max_nonfinite_steps`` > 0 a step whose loss or gradient is
      not finite changes nothing but the step; the metric ``nonfinite_where`` says so, see :func:`nonfinite.where`.
    """
    patterns = config.optimizer.frozen
    gradients_of = _make_gradients(_make_loss(model, task, config), task, config)

    def as_before(new: Tree, old: Tree) -> Tree:
        """The new tree with the old leaves where it is frozen: bit for bit, which adding zero is not."""
        return paths.with_frozen(new, paths.mask(new, patterns), old)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        gradients, left = gradients_of(state, state.step.astype(jnp.float32) / duration.total_steps, batch, key)
        metrics = task.metrics_of_step(left.metrics)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, step=state.step)
        params = as_before(optax.apply_updates(state.params, updates), state.params)
        routing = update_states(config.model.router, state.params, state.routing, left.observed, duration)
        routing = as_before(routing, state.routing)
        ema_params = state.ema_params
        if ema_params is not None:
            averages = optax.incremental_update(params, ema_params, 1.0 - config.train.ema_decay)
            ema_params = as_before(averages, ema_params)
        where = nonfinite.where(metrics["loss"], gradients)
        metrics |= {"gradient_norm": optax.tree.norm(gradients), "learning_rate": schedule(state.step)}
        metrics[nonfinite.WHERE] = where
        after = TrainState(state.step + 1, state.seed, params, opt_state, routing, ema_params, left.memory)
        if config.train.max_nonfinite_steps > 0:
            after = nonfinite.choose(where < 0, after, dataclasses.replace(state, step=state.step + 1))
        return after, metrics

    return train_step


def _make_loss(model: Model, task: Task, config: Config) -> Callable[..., tuple[Array, Left]]:
    """``loss(trained, whole, routing, progress, shares, memory, batch, key)``, to be differentiated in the first: the
    trained part of the parameters ``whole``."""

    def loss_function(
        trained: Tree,
        whole: Tree,
        routing: Tree,
        progress: Array,
        shares: Shares,
        memory: Tree | None,
        batch: Batch,
        key: Array,
    ) -> tuple[Array, Left]:
        params = paths.with_frozen(trained, paths.mask(whole, config.optimizer.frozen), whole)
        # The order stays: by it a run continues bit for bit.
        first_key, second_key, routing_key, dropout_key, third_key = jax.random.split(key, 5)
        prepared = task.prepare((first_key, second_key, third_key), batch)
        (outputs, aux), changed = model.apply(
            {"params": gathered(params), STATE: routing},
            prepared["inputs"],
            train=True,
            sequence_mask=task.mask(prepared),
            token_mask=task.token_mask(prepared),
            progress=progress,
            memory=memory,
            mutable=[OBSERVED],
            rngs={"routing": routing_key, "dropout": dropout_key},
        )
        objective, metrics = _times(shares.examples, task.loss(outputs, aux, prepared))
        loss = objective + aux["auxiliary_loss"]  # of groups, of which all parts have as many
        metrics = {"loss": loss} | metrics | routing_metrics(aux["moe"], shares.tokens)
        return loss, Left(changed.get(OBSERVED, {}), aux["memory"] if task.carries_memory else None, metrics)

    return loss_function


def _times(share: Array | None, values: Tree) -> Tree:
    return values if share is None else jax.tree.map(lambda value: share * value, values)


def _make_gradients(loss_function: Callable[..., tuple[Array, Left]], task: Task, config: Config) -> Callable[..., Any]:
    """``gradients(state, progress, batch, key) -> (gradients, left)``, over the parts of the batch: mean gradients,
    zero where parameters are frozen; sums that the routers' steps observed; each row's memory; mean metrics."""
    parts, patterns = config.train.gradient_accumulation_steps, config.optimizer.frozen
    group = config.model.moe.group_size_sequences
    gradient_function = jax.value_and_grad(loss_function, has_aux=True)

    def gradients_of(state: TrainState, progress: Array, batch: Batch, key: Array) -> tuple[Tree, Left]:
        frozen = paths.mask(state.params, patterns)
        trained = paths.trained_part(state.params, frozen)  # what the backward pass is for, and no further
        about = (trained, state.params, state.routing, progress)
        if parts == 1:
            (_, left), gradients = gradient_function(*about, _WHOLE, state.memory, batch, key)
            return paths.zeros_where_frozen(gradients, frozen, state.params), left

        def accumulate(total: Tree, part: tuple[Shares, Tree | None, Batch, Array]) -> tuple[Tree, Left]:
            (_, left), gradients = gradient_function(*about, *part)
            return jax.tree.map(jnp.add, total, gradients), left

        zeros = jax.tree.map(jnp.zeros_like, trained)
        memories, batches = (split_batch(tree, parts, group) for tree in (state.memory, batch))
        shares = _shares_of_parts(task, batches)
        total, left = jax.lax.scan(accumulate, zeros, (shares, memories, batches, jax.random.split(key, parts)))
        left = Left(
            observed=jax.tree.map(lambda values: jnp.sum(values, axis=0), left.observed),
            memory=join_batch(left.memory, group),
            metrics={name: jnp.mean(values, axis=0) for name, values in left.metrics.items()},
        )
        means = jax.tree.map(lambda g: g / parts, total)
        return paths.zeros_where_frozen(means, frozen, state.params), left

    return gradients_of


def _shares_of_parts(task: Task, batches: Batch) -> Shares:
    """Shares [parts] of the parts of a batch."""

    def num_tokens(batch: Batch) -> Array | None:
        real, mask = task.token_mask(batch), task.mask(batch)
        return None if real is None else jnp.sum(real if mask is None else real & mask[:, None])

    def share(count: Callable[[Batch], Array | None]) -> Array | None:
        counts = jax.vmap(count)(batches)
        return None if counts is None else counts / jnp.maximum(jnp.mean(counts), 1e-6)

    return Shares(share(task.num_examples_of), share(num_tokens))


def split_batch(batch: Tree, parts: int, group: int) -> Tree:
    """A batch in equal parts [parts, B / parts, ...], each with examples from every device.

    Sequences that form a group in the batch stay together: the parts route as the whole batch does.

    Args:
      batch: tree of arrays [B, ...].
      parts: divides B in whole groups.
      group: consecutive sequences of a group.
    """

    def split(array: Array) -> Array:
        grouped = array.reshape(-1, parts, group, *array.shape[1:])
        return jnp.swapaxes(grouped, 0, 1).reshape(parts, -1, *array.shape[1:])

    return jax.tree.map(split, batch)


def join_batch(parts: Tree, group: int) -> Tree:
    """The batch [B, ...] whose parts [parts, B / parts, ...] :func:`split_batch` gives."""

    def join(array: Array) -> Array:
        grouped = array.reshape(len(array), -1, group, *array.shape[2:])
        return jnp.swapaxes(grouped, 0, 1).reshape(-1, *array.shape[2:])

    return jax.tree.map(join, parts)


def routing_metrics(layers: dict[str, Any], share: Array | None = None) -> dict[str, Array]:
    """Routing metrics of the log, from the model's ``aux["moe"]``; those of tokens times ``share``, if there is one.

    They are each loss by name, mean over layers and groups, without its weight. Of each layer they have the share of
    dropped assignments, the entropy in nats, and a token's number of experts where it is not fixed. The experts'
    shares of the assignments [MoE layers, E] are for :mod:`vmoe_inform.training.measurements`, which sums them up.
    """
    metrics: dict[str, Array] = {}
    for name in sorted({loss for layer in layers.values() for loss in layer["losses"]}):
        values = [jnp.mean(layer["losses"][name]) for layer in layers.values() if name in layer["losses"]]
        metrics[f"losses/{name}"] = jnp.mean(jnp.stack(values))
    for block, layer in layers.items():
        metrics[f"routing/{block}/dropped"] = _times(share, layer["dropped"])
        metrics[f"routing/{block}/entropy"] = _times(share, layer["entropy"])
        if "experts_per_token" in layer:
            metrics[f"routing/{block}/experts_per_token"] = _times(share, layer["experts_per_token"])
    if layers:
        metrics[EXPERT_LOADS] = _times(share, jnp.stack([layer["load"] for layer in layers.values()]))
    return metrics
