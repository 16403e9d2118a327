"""Families of models of other programs: each says which settings and which of our parameters a checkpoint holds.

A family is one file and one line below. Formats of files are in :mod:`vmoe_inform.interop.formats`.
"""

from vmoe_inform import checks
from vmoe_inform.interop.families import big_vision, hugging_face, timm, vision_transformer, vmoe
from vmoe_inform.interop.families.base import Family, Move, Question, Settings
from vmoe_inform.interop.stored import StoredCheckpoint
from vmoe_inform.registry import Registry

__all__ = ["FAMILIES", "Family", "Move", "Question", "Settings", "recognise"]

FAMILIES: Registry[Family] = Registry("family of checkpoints")
FAMILIES.add("vmoe", vmoe.VMoe())
FAMILIES.add("vision_transformer", vision_transformer.VisionTransformer())
FAMILIES.add("big_vision", big_vision.BigVision())
FAMILIES.add("timm", timm.Timm())
FAMILIES.add("hugging_face", hugging_face.HuggingFace())

_NAMES_SHOWN = 5


def recognise(stored: StoredCheckpoint) -> Family:
    """The family whose names a checkpoint has.

    Raises:
      ValueError: none knows them, or several do.
    """
    found = [name for name in FAMILIES if FAMILIES[name].recognises(stored)]
    if len(found) == 1:
        return FAMILIES[found[0]]
    if found:
        raise checks.error(f"{stored.path}", "arrays of one family", f"those of {', '.join(found)}")
    titles = "; ".join(FAMILIES[name].title for name in FAMILIES)
    raise checks.error(f"{stored.path}", f"arrays named as in one of: {titles}", sorted(stored.arrays)[:_NAMES_SHOWN])
