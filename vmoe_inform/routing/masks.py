"""Which tokens a token may attend to in a token graph, and the graph's rows without the columns that they rule out."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int, Tree
from vmoe_inform.routing.blocks import map_row_blocks

GivenMask: TypeAlias = Bool[Array, "*#batch N N"] | str | None

_LEAST_ROWS, _MOST_SEGMENTS = 64, 8  # of a causal graph, which is worked out without most of its upper triangle


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MaskRows:
    """Rows of a mask, created on demand: which tokens R of the N tokens may attend to.

    Attributes:
      positions: of the R tokens among the N.
      given: their rows of the caller's mask, if it is an array.
      causal: whether token i may attend to tokens j <= i only.
      span: P, where a token may attend to the P tokens before it and not to itself; None where it may.
    """

    positions: Int[Array, "*blocks R 1"]
    given: Bool[Array, "*leading R N"] | None
    causal: bool = dataclasses.field(metadata={"static": True})
    span: int | None = dataclasses.field(default=None, metadata={"static": True})

    def allowed(self, shape: tuple[int, ...]) -> Bool[Array, "*batch R J"] | None:
        """The rows in that shape, of the first J of the N tokens; None: all tokens attend to all.

        A token with an empty row attends to itself alone.
        """
        others = jnp.arange(shape[-1])[None, :]
        if self.span is not None:
            before = self.positions - others
            first = (self.positions == 0) & (others == 0)
            return jnp.broadcast_to(((before > 0) & (before <= self.span)) | first, shape)
        if self.causal:
            return jnp.broadcast_to(self.positions >= others, shape)
        if self.given is None:
            return None
        alone = ~jnp.any(self.given, axis=-1, keepdims=True)
        itself = jnp.broadcast_to(self.positions == others, self.given.shape)
        return jnp.broadcast_to(self.given | (alone & itself), shape)


def rows_of_mask(mask: GivenMask, num_tokens: int, span: int | None = None) -> MaskRows:
    """All rows of a mask; raises ValueError unless it is None, "causal" or an array [..., N, N].

    Args:
      mask: which tokens a token may attend to.
      num_tokens: N.
      span: P, where attention is to the P tokens before. Then no mask but "causal" matters.
    """
    positions = jnp.arange(num_tokens)[:, None]
    if span is not None:
        return MaskRows(positions, None, causal=True, span=span)
    if mask is None or isinstance(mask, str):
        if mask not in (None, "causal"):
            raise checks.error("mask", "None, 'causal' or an array", mask)
        return MaskRows(positions, None, causal=mask == "causal")
    checks.shape("mask", mask.shape, ("...", num_tokens, num_tokens))
    return MaskRows(positions, mask, causal=False)


def rows_of_next(num_rows: int, first: int | Int[Array, ""], span: int | None = None) -> MaskRows:
    """Rows of the causal mask: those of ``num_rows`` tokens that follow the ``first`` tokens of a sequence.

    Args:
      num_rows: R.
      first: number of tokens before.
      span: as of :func:`rows_of_mask`.
    """
    return MaskRows(first + jnp.arange(num_rows)[:, None], None, causal=True, span=span)


def map_rows_of_graph(
    function: Callable[[Tree, Tree], Array], rows: Tree, columns: Tree, mask_rows: MaskRows, *, block_size: int | None
) -> Float[Array, "*batch N C"]:
    """``function((rows, mask_rows), columns)``, in blocks of rows.

    Where the mask is causal, rows see no more columns than they need: 8 segments take 9/16 of the products. Rows of
    some tokens only (:func:`rows_of_next`) see all columns.

    Args:
      function: R rows with their mask, and the first J columns -> [..., R, C].
      rows: arrays [..., R, *], R = N but for :func:`rows_of_next`.
      columns: arrays [..., N, *].
      mask_rows: of the rows.
      block_size: rows in memory at a time, also for gradients; None: all of a segment.
    """
    num_tokens = mask_rows.positions.shape[-2]
    cuts = mask_rows.causal and num_tokens == jax.tree.leaves(columns)[0].shape[-2]
    segments = max(1, min(_MOST_SEGMENTS, num_tokens // _LEAST_ROWS)) if cuts else 1
    if segments == 1:
        of_rows = functools.partial(_of_columns, function, columns)
        return map_row_blocks(of_rows, (rows, mask_rows), block_size=block_size)
    ends = [num_tokens * number // segments for number in range(segments + 1)]

    def cut(tree: Tree, start: int, end: int) -> Tree:
        return jax.tree.map(lambda array: jax.lax.slice_in_dim(array, start, end, axis=-2), tree)

    parts = []
    for start, end in itertools.pairwise(ends):
        known = cut(columns, 0, end)
        some = cut((rows, mask_rows), start, end)
        parts.append(map_row_blocks(functools.partial(_of_columns, function, known), some, block_size=block_size))
    return jnp.concatenate(parts, axis=-2)


def _of_columns(function: Callable[[Tree, Tree], Array], columns: Tree, rows: Tree) -> Array:
    return function(rows, columns)
