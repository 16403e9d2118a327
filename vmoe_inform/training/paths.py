"""Selects parameters by regular expressions, searched for in their paths."""

import difflib
import re
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Tree
from vmoe_inform.config import OptimizerConfig
from vmoe_inform.nn.trunk import EMBEDDINGS
from vmoe_inform.sharding.rules import path_name

Factors = Sequence[tuple[str, float]]  # (pattern, factor), of which the first that matches counts


def matches_any(patterns: Iterable[str], path: str) -> bool:
    """Whether one of the patterns is found in a path such as ``block_1/moe/router/linear/kernel``."""
    return any(re.search(pattern, path) for pattern in patterns)


def factor_of(factors: Factors, path: str) -> float:
    """Factor of the first pattern that is found in a path; 1 if none is."""
    return next((factor for pattern, factor in factors if re.search(pattern, path)), 1.0)


def mask(tree: Tree, patterns: Sequence[str]) -> Tree:
    """Of each leaf, whether one of the patterns is found in its path."""
    return jax.tree_util.tree_map_with_path(lambda path, _: matches_any(patterns, path_name(path)), tree)


def layer_factors(tree: Tree, decay: float) -> Tree:
    """Factors of the learning rate that fall from the head to the embeddings (ELECTRA, arXiv 2003.10555, Appendix B).

    Of L blocks, block i counted from 0 has ``decay ** (L - i)``, embeddings have ``decay ** (L + 1)``, and all behind
    the last block has 1.
    """
    blocks = {int(found[1]) for name in _names(tree) if (found := re.match(r"block_(\d+)/", name))}
    above = max(blocks, default=-1) + 1

    def factor(path: Sequence, _: Tree) -> float:
        name = path_name(path)
        if name.startswith(EMBEDDINGS):
            return decay ** (above + 1)
        found = re.match(r"block_(\d+)/", name)
        return decay ** (above - int(found[1])) if found else 1.0

    return jax.tree_util.tree_map_with_path(factor, tree)


def check(optimizer: OptimizerConfig, params: Tree, states: Tree) -> None:
    """Whether every pattern of the optimizer's settings means something.

    Args:
      optimizer: patterns.
      params: of the model, or their shapes.
      states: the same of the routers' steps, which can be frozen too.

    Raises:
      ValueError: a pattern that no path has, with near names; or nothing is left to train.
    """
    names, state_names = _names(params), _names(states)
    decayed = (optimizer.weight_decay_pattern,) if optimizer.weight_decay > 0 else ()
    for field, patterns, candidates in (
        ("frozen", optimizer.frozen, [*names, *state_names]),
        ("trained_first", optimizer.trained_first, names),
        ("multipliers", [pattern for pattern, _ in optimizer.multipliers], names),
        ("weight_decay_pattern", decayed, names),
        ("weight_decay_multipliers", [pattern for pattern, _ in optimizer.weight_decay_multipliers], names),
    ):
        for pattern in patterns:
            if not any(re.search(pattern, name) for name in candidates):
                expected = f"a pattern found in the path of some parameter, such as {_near(pattern, candidates)}"
                raise checks.error(f"optimizer.{field}", expected, pattern)
    trained = [name for name in names if not matches_any(optimizer.frozen, name)]
    if optimizer.trained_first and not any(matches_any(optimizer.trained_first, name) for name in trained):
        raise checks.error("optimizer.trained_first", "parameters that are not frozen", optimizer.trained_first)
    if not trained:
        raise checks.error("optimizer.frozen", "patterns that leave some parameter to train", optimizer.frozen)


def _names(tree: Tree) -> list[str]:
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _near(pattern: str, names: Sequence[str]) -> str:
    """The three names, or parts of names, that are most like a pattern that is in none."""
    parts = dict.fromkeys(part for name in names for part in (name, *name.split("/")))
    return ", ".join(difflib.get_close_matches(pattern, parts, n=3, cutoff=0.5) or list(names)[:3])


# ------------------------------------------------------------------------------------------------- frozen and trained


def trained_part(tree: Tree, frozen: Tree) -> Tree:
    """The tree with None, which is no leaf, in place of what is frozen."""
    return jax.tree.map(lambda is_frozen, leaf: None if is_frozen else leaf, frozen, tree)


def with_frozen(trained: Tree, frozen: Tree, whole: Tree) -> Tree:
    """Leaves of :func:`trained_part`, and in place of None those of ``whole``."""
    return jax.tree.map(
        lambda is_frozen, leaf, own: own if is_frozen else leaf,
        frozen,
        trained,
        whole,
        is_leaf=lambda leaf: leaf is None,
    )


def zeros_where_frozen(trained: Tree, frozen: Tree, whole: Tree) -> Tree:
    """As :func:`with_frozen`, with zeros in place of the leaves of ``whole``."""
    zeros = jax.tree.map(lambda is_frozen, own: jnp.zeros_like(own) if is_frozen else own, frozen, whole)
    return with_frozen(trained, frozen, zeros)


def num_frozen(params: Tree, patterns: Sequence[str]) -> int:
    """Number of values in the frozen parameters."""
    sizes = jax.tree.map(lambda is_frozen, leaf: leaf.size if is_frozen else 0, mask(params, patterns), params)
    return sum(jax.tree.leaves(sizes))
