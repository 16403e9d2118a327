"""What a family of models of another program says about its checkpoints."""

import abc
import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop.stored import StoredCheckpoint

AS_IT_IS = "as it is"


def _same(array: np.ndarray) -> np.ndarray:
    return array


@dataclasses.dataclass(frozen=True)
class Move:
    """One of our parameters, and the arrays of a checkpoint that it is made of.

    Attributes:
      ours: its path, e.g. ``block_0/mlp/hidden/kernel``.
      theirs: names of one array or several. One array may be part of several moves, as a fused projection is.
      action: in a few words, for the table of arrays, e.g. ``"transposed"``.
      convert: their arrays, in the order of ``theirs``, to ours. Float32 is made of other types afterwards.
    """

    ours: str
    theirs: tuple[str, ...]
    action: str = AS_IT_IS
    convert: Callable[..., np.ndarray] = _same


@dataclasses.dataclass(frozen=True)
class Question:
    """A field that nothing says.

    Attributes:
      words: what it means, in a few.
      example: a value, as it is typed; that of a published model if there is one.
    """

    words: str
    example: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings that a checkpoint has, leaves open, or is known to need.

    Attributes:
      model: fields of ``config.model`` that names and shapes say, e.g. ``{"num_layers": 12, "moe.layers": (5, 7)}``.
        Others than these are refused.
      asked: fields of ``config.model`` that nothing says. Users have to give them.
      assumed: fields of ``config.model`` that nothing says, at the values of the published models. Users may give
        others.
      data: fields of ``config.data``: how the published models' images are prepared (value range, resize, crop). Maybe
        also ``class_names`` in the program's words, in the order of the logits.
      asked_data: fields of ``config.data`` that nothing says and on which published models differ.
    """

    model: Mapping[str, Any]
    asked: Mapping[str, Question] = dataclasses.field(default_factory=dict)
    assumed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    asked_data: Mapping[str, Question] = dataclasses.field(default_factory=dict)


class Family(abc.ABC):
    """Models of another program. All methods are pure; only :attr:`Move.convert` sees values.

    A program may keep its parameters inside a state of training, or inside another module. So :meth:`settings`,
    :meth:`moves` and :meth:`ignored` look for what names of parameters begin with. A subclass sees the rest of them.

    Attributes:
      title: of the program, for messages and tables.
      setting_names: the program's own names of settings -> fields of ``config.model``. Users may give either.
      setting_values: by the program's name of a setting, its own words for values -> ours.
      relative_names: of those names, the ones whose meaning depends on other settings.
      roots: what names of parameters may begin with; the first that fits counts.
      unused: arrays among the parameters that our model does without, as regular expressions -> why.
      outside: arrays outside of the parameters, as regular expressions -> why they are no parameters.
    """

    title: str
    setting_names: Mapping[str, str] = {}
    setting_values: Mapping[str, Mapping[str, Any]] = {}
    relative_names: Collection[str] = ()
    roots: Sequence[str] = ("",)
    unused: Mapping[str, str] = {}
    outside: Mapping[str, str] = {}

    @abc.abstractmethod
    def has_names(self, names: Collection[str]) -> bool:
        """Whether parameters have the names of this family. A checkpoint is of one family.

        Args:
          names: of parameters, below the root.
        """

    @abc.abstractmethod
    def read_settings(self, parameters: StoredCheckpoint) -> Settings:
        """:meth:`settings`, of the parameters below the root."""

    @abc.abstractmethod
    def make_moves(self, parameters: StoredCheckpoint, model: VisionModelConfig) -> Sequence[Move]:
        """:meth:`moves`, of the parameters below the root."""

    def recognises(self, stored: StoredCheckpoint) -> bool:
        """Whether a checkpoint is of this family."""
        return self._root(stored) is not None

    def settings(self, stored: StoredCheckpoint) -> Settings:
        """What names, shapes and description say about the model.

        Raises:
          ValueError: a model of the family that this library cannot be, with the reason.
        """
        return self.read_settings(stored.below(self._root(stored) or ""))

    def moves(self, stored: StoredCheckpoint, model: VisionModelConfig) -> list[Move]:
        """Where each of our parameters is from.

        The importer compares this with the parameters of ``model`` and with the names in ``stored``. It raises an error
        that lists what is missing or left over on either side.

        Args:
          stored: the checkpoint.
          model: with the user's settings.
        """
        root = self._root(stored) or ""
        found = self.make_moves(stored.below(root), model)
        return [dataclasses.replace(move, theirs=tuple(root + name for name in move.theirs)) for move in found]

    def ignored(self, stored: StoredCheckpoint) -> dict[str, str]:
        """Arrays of a checkpoint that are no parameters of the model, with the reason in a few words."""
        root = self._root(stored) or ""
        found = {}
        for name in stored.arrays:
            patterns = {**(self.outside if not root or not name.startswith(root) else {}), **self._unused_below(root)}
            why = next((why for pattern, why in patterns.items() if re.fullmatch(pattern, name)), None)
            if why is not None:
                found[name] = why
        return found

    def our_setting(self, name: str, value: Any, model: Mapping[str, Any]) -> tuple[str, Any]:
        """A setting by the program's name, as the field of ``config.model`` that it is, with its value.

        Args:
          name: one of the program's names, or a field of ``config.model``.
          value: by that name.
          model: fields of ``config.model`` that are known, for :attr:`relative_names`.
        """
        del model
        words = self.setting_values.get(name, {})
        return self.setting_names.get(name, name), words.get(value, value) if isinstance(value, str) else value

    def _root(self, stored: StoredCheckpoint) -> str | None:
        return next((root for root in self.roots if self.has_names(stored.below(root).arrays.keys())), None)

    def _unused_below(self, root: str) -> dict[str, str]:
        return {re.escape(root) + pattern: why for pattern, why in self.unused.items()}
