"""What a family of models of another program says about its checkpoints."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
class Settings:
    """Settings that a checkpoint has, leaves open, or is known to need.

    Attributes:
      model: fields of ``config.model`` that names and shapes say, e.g. ``{"num_layers": 12, "moe.layers": (5, 7)}``.
        Others than these are refused.
      asked: fields of ``config.model`` that nothing says, with what they mean in a few words. Users have to give them.
      assumed: fields of ``config.model`` that nothing says, at the values of the published models. Users may give
        others.
      data: fields of ``config.data``: how the published models' images are prepared (value range, resize, crop). Maybe
        also ``class_names`` in the program's words, in the order of the logits.
      asked_data: fields of ``config.data`` that nothing says and on which published models differ, with what they mean.
    """

    model: Mapping[str, Any]
    asked: Mapping[str, str] = dataclasses.field(default_factory=dict)
    assumed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    asked_data: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Family(abc.ABC):
    """Models of another program. All methods are pure; only :attr:`Move.convert` sees values.

    Attributes:
      title: of the program, for messages and tables.
      setting_names: the program's own names of settings -> fields of ``config.model``. Users may give either.
      setting_values: by the program's name of a setting, its own words for values -> ours.
    """

    title: str
    setting_names: Mapping[str, str] = {}
    setting_values: Mapping[str, Mapping[str, Any]] = {}

    @abc.abstractmethod
    def recognises(self, stored: StoredCheckpoint) -> bool:
        """Whether a checkpoint has the names of this family. A checkpoint is of one family."""

    @abc.abstractmethod
    def settings(self, stored: StoredCheckpoint) -> Settings:
        """What names, shapes and description say about the model.

        Raises:
          ValueError: a model of the family that this library cannot be, with the reason.
        """

    @abc.abstractmethod
    def moves(self, stored: StoredCheckpoint, model: VisionModelConfig) -> Sequence[Move]:
        """Where each of our parameters is from.

        The importer compares this with the parameters of ``model`` and with the names in ``stored``. It raises an error
        that lists what is missing or left over on either side.

        Args:
          stored: the checkpoint.
          model: with the user's settings.
        """

    def ignored(self, name: str) -> str | None:
        """Why an array of the checkpoint is no parameter of the model, in a few words; None if it is one."""
        del name
        return None

    def our_setting(self, name: str, value: Any, settings: Settings) -> tuple[str, Any]:
        """A setting by the program's name, as the field of ``config.model`` that it is, with its value.

        Args:
          name: one of the program's names, or a field of ``config.model``.
          value: by that name.
          settings: of the checkpoint.
        """
        del settings
        words = self.setting_values.get(name, {})
        return self.setting_names.get(name, name), words.get(value, value) if isinstance(value, str) else value
