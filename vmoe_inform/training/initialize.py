"""A run that starts from what another run has learned: fine-tuning, or upcycling to more experts."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
from absl import logging

from vmoe_inform import storage
from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.config import Config, TextDataConfig
from vmoe_inform.data import classes
from vmoe_inform.nn import models
from vmoe_inform.nn.models import Model
from vmoe_inform.runs import heads
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.folder import CONFIG_FILE
from vmoe_inform.runs.saved_trees import check_same_model
from vmoe_inform.runs.state import TrainState
from vmoe_inform.training import upcycling
from vmoe_inform.training.program import Program

_POSITIONS = "params/position_embedding"
_CLASS_TOKEN = "params/class_token"
_HEAD = ("params/pre_logits/", "params/head/")
_STATES = ("routing/",)


def from_run(folder: storage.Path, state: TrainState, program: Program, config: Config) -> TrainState:
    """The state before the first step, with the newest parameters of another run.

    These are the moving average, if that run keeps one. Position embeddings are resized to this model's image size.
    The head, with the tanh layer before it, moves as a whole, its classes in this run's order. If it or its classes
    differ, it starts anew (ViT, arXiv 2010.11929, Sec. 3.2). With another vocabulary all that is of words does, in
    routers too; so do positions of text that the other run lacks. States of the router's steps move; a step that the
    other run lacks starts with a fresh one. With other numbers of experts, or where a block of the other run is dense,
    experts are copies, see :mod:`vmoe_inform.training.upcycling`. All else has to be the same. The optimizer starts
    anew.

    Args:
      folder: of the other run.
      state: fresh, from ``program.initialize``.
      program: of this run.
      config: of this run, with what is known of its classes and its vocabulary.

    Raises:
      FileNotFoundError: no run there, or no checkpoint in it.
      ValueError: its model differs in more than image size, head and experts; lists the differing paths. Or there is
        no copy to add ``train.upcycling_noise`` to.
    """
    data = config.data
    if not storage.exists(folder / CONFIG_FILE):
        raise FileNotFoundError(
            f"train.initial_checkpoint: expected the folder of a run, with {CONFIG_FILE}; received {str(folder)!r}"
        )
    found = runs.find(folder)
    found.warn_of_unnamed_classes()
    run = found.load_intact(program.mesh)
    params = _with_head_for(data.class_names, run.variables["params"], run.class_names, folder)
    saved, fresh = {**run.variables, "params": params}, {"params": state.params, "routing": state.routing}
    if isinstance(data, TextDataConfig) and isinstance(run.config.data, TextDataConfig):
        if _vocabulary_of(data, program.model.config) != _vocabulary_of(run.config.data, run.config.model):
            logging.warning("the vocabulary starts anew: that of %s is another", folder)
            saved = _without_words(saved, fresh, of_words(program.model))
        saved = {**saved, "params": _with_text_of(saved["params"], state.params)}
    noise = config.train.upcycling_noise
    saved = upcycling.with_copied_experts(saved, fresh, noise=noise, seed=config.seed)
    variables = adapt(run.step, saved, fresh)
    averages = state.ema_params
    if averages is not None:
        # Under jit, where arrays may be spread over processes; the training step gives the memory of both away.
        copy = jax.jit(functools.partial(jax.tree.map, jnp.copy), out_shardings=_shardings(averages))
        averages = copy(variables["params"])
    logging.info("started from step %d of %s", run.step, folder)
    return dataclasses.replace(state, params=variables["params"], routing=variables["routing"], ema_params=averages)


def _with_head_for(class_names: Sequence[str], params: Tree, saved: Sequence[str], folder: storage.Path) -> Tree:
    """Another run's parameters with its head in the order of this run's classes, or without it if it has others."""
    if not saved or not class_names:
        return params  # the head is taken if it has as many
    if heads.are_same(saved, class_names):
        return heads.in_order(params, saved, class_names)
    difference = classes.difference(saved, class_names)
    logging.warning("the head starts anew: the classes of %s are others (%s)", folder, difference)
    return {name: part for name, part in params.items() if f"params/{name}/" not in _HEAD}


def _vocabulary_of(data: TextDataConfig, model: Any) -> tuple[str, int]:
    """What has to be the same of two runs for a word to have the same number."""
    return data.vocabulary_hash, model.vocabulary_size


def of_words(model: Model) -> frozenset[str]:
    """Paths of all variables that have a part for each word, in the vocabulary and in routers.

    With one word more they have another shape.
    """
    config: Any = model.config
    sizes = (config.vocabulary_size, config.vocabulary_size + 1)
    one, other = (
        flax.traverse_util.flatten_dict(
            jax.eval_shape(
                functools.partial(models.initialize, type(model)(dataclasses.replace(config, vocabulary_size=size))),
                jax.random.key(0),
            ),
            sep="/",
        )
        for size in sizes
    )
    return frozenset(path for path in one if one[path].shape != other[path].shape)


def _without_words(saved: dict[str, Tree], fresh: dict[str, Tree], words: frozenset[str]) -> dict[str, Tree]:
    """Another run's variables, with fresh ones of words. The state of a router's step starts anew as a whole."""
    given, wanted = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (saved, fresh))
    states = tuple(path.partition("/state")[0] + "/state" for path in words if path.startswith(_STATES))
    kept = {path: leaf for path, leaf in given.items() if not states or not path.startswith(states)}
    for path in words:
        if path.startswith("params/") and path in given:
            kept[path] = wanted[path]
    return flax.traverse_util.unflatten_dict(kept, sep="/")


def _with_text_of(params: Tree, fresh: Tree) -> Tree:
    """Another run's parameters with what this model of text has of the vocabulary, and with its positions."""
    vocabulary = {name: params["vocabulary"].get(name, leaf) for name, leaf in fresh["vocabulary"].items()}
    adapted = {**params, "vocabulary": vocabulary}
    before, after = (tree.get("position_embedding") for tree in (params, fresh))
    if before is not None and after is not None and before.shape != after.shape:
        logging.info("%s: the first %d tokens of %d", _POSITIONS, min(before.shape[1], after.shape[1]), after.shape[1])
        adapted["position_embedding"] = jax.jit(extend_positions, out_shardings=after.sharding)(before, after)
    return adapted


def extend_positions(embedding: Float[Array, "1 N _"], fresh: Float[Array, "1 M D"]) -> Float[Array, "1 M _"]:
    """Position embeddings of text of another length: those of the first tokens, and fresh ones where there are none.

    Those of another width are another model's, and stay as they are.
    """
    if embedding.shape[2] != fresh.shape[2]:
        return embedding
    count = min(embedding.shape[1], fresh.shape[1])
    return jnp.concatenate([embedding[:, :count], fresh[:, count:]], axis=1)


def _shardings(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def adapt(step: int, saved: dict[str, Tree], fresh: dict[str, Tree]) -> dict[str, Tree]:
    """Initial variables of a model, from another's trained ones and its own fresh ones.

    Args:
      step: of the checkpoint, for error messages.
      saved: variables of the other model.
      fresh: variables of this model.

    Returns:
      variables with the paths and shapes of ``fresh``.

    Raises:
      ValueError: as :func:`from_run`.
    """
    given, wanted = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (saved, fresh))
    head, fresh_head = _part(given, _HEAD), _part(wanted, _HEAD)
    shapes, fresh_shapes = ({path: leaf.shape for path, leaf in part.items()} for part in (head, fresh_head))
    if shapes != fresh_shapes:
        if shapes:
            logging.warning("the head starts anew: it has %s; that of the checkpoint %s", fresh_shapes, shapes)
        head = fresh_head

    states, fresh_states = _part(given, _STATES), _part(wanted, _STATES)
    for path in sorted(states.keys() ^ fresh_states.keys()):
        logging.info("%s: %s", path, "left out" if path in states else "starts anew, the checkpoint has none")

    rest = {path: leaf for path, leaf in given.items() if not path.startswith((*_HEAD, *_STATES))}
    before, after = rest.get(_POSITIONS), wanted.get(_POSITIONS)  # models with relative positions have none
    has_class_token = _CLASS_TOKEN in rest
    is_like = has_class_token == (_CLASS_TOKEN in wanted)
    if is_like and before is not None and after is not None and before.shape[1] != after.shape[1]:
        logging.info("%s: resized from %d to %d tokens", _POSITIONS, before.shape[1], after.shape[1])
        resize = functools.partial(
            resize_position_embedding, num_tokens=after.shape[1], has_class_token=has_class_token
        )
        rest[_POSITIONS] = jax.jit(resize, out_shardings=after.sharding)(before)

    adapted = {**rest, **head, **{path: states.get(path, leaf) for path, leaf in fresh_states.items()}}
    check_same_model(step, {path: leaf.shape for path, leaf in adapted.items()}, wanted)
    variables = flax.traverse_util.unflatten_dict(adapted, sep="/")
    return {"params": variables["params"], "routing": variables.get("routing", {})}


def _part(flat: dict[str, Array], prefixes: tuple[str, ...]) -> dict[str, Array]:
    return {path: leaf for path, leaf in flat.items() if path.startswith(prefixes)}


def resize_position_embedding(
    embedding: Float[Array, "1 N D"], *, num_tokens: int, has_class_token: bool
) -> Float[Array, "1 M D"]:
    """Position embeddings of another number of patches, by bilinear interpolation of the grid that they lie on.

    Args:
      embedding: of a square of patches, row by row.
      num_tokens: M, for another square.
      has_class_token: whether the first position is a class token's, which stays as it is.
    """
    first = int(has_class_token)
    old, new = (math.isqrt(tokens - first) for tokens in (embedding.shape[1], num_tokens))
    grid = embedding[0, first:].reshape(old, old, -1)
    grid = jax.image.resize(grid, (new, new, grid.shape[-1]), "bilinear")  # antialiased where it becomes smaller
    return jnp.concatenate([embedding[:, :first], grid.reshape(1, new * new, -1)], axis=1)
