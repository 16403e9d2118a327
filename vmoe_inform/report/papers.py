"""Scores that papers report for models of this library, and the runs that are of these models.

Two sources, both of ImageNet with 1,000 classes:

- Mutual-Inform SMoE, Table 2: V-MoE, uninformed, informed by similarity and informed by attention, each with 2 experts
  of a patch. Its Appendix C.2 names a small V-MoE of 8 blocks of width 512 with the code of V-MoE. It does not state
  patch size, image size and number of experts; here they are those of that code's model of this size. The table states
  297M parameters for all three, and C.2 states 60M, which this model has.
- V-MoE (Riquelme et al. 2021), the code's configuration of S/32 with 8 experts, at 224 px and fine-tuned at 384 px:
  means over three seeds. Its figure for ReaL is left out. It is only 1.3 points above plain top-1, as if images without
  labels counted as wrong; here they are left out.

A run is of such a model by its architecture; how it was trained is not compared. Nor are its router's options, such as
attention's sigma, which results do not hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vmoe_inform.evaluation.results import ModelFacts, Results

# Images of the sets that the papers' figures are over.
NUM_IMAGES = {"clean": 50_000, "c": 50_000, "r": 30_000, "a": 7_500, "v2": 10_000}


@dataclass(frozen=True)
class Model:
    """A model of a paper.

    Attributes:
      source: the paper and where in it.
      name: what the paper calls the model.
      inform: steps that inform its router.
      image_size_px: side of its images.
      top1: its accuracy in % by suite; of C the mean over corruptions and severities.
    """

    source: str
    name: str
    inform: tuple[str, ...]
    image_size_px: int
    top1: Mapping[str, float]


_TABLE = "Mutual-Inform SMoE, Table 2"
_CODE = "V-MoE's code, vmoe_s32_last2_ilsvrc2012_randaug_light1"
MODELS = (
    Model(_TABLE, "V-MoE (baseline)", (), 224, {"clean": 72.71, "r": 35.42, "a": 5.27, "c": 48.72}),
    Model(
        _TABLE,
        "Similarity-Inform V-MoE",
        ("similarity",),
        224,
        {"clean": 73.21, "r": 36.58, "a": 5.60, "c": 50.45},
    ),
    Model(
        _TABLE,
        "Attention-Inform V-MoE",
        ("attention",),
        224,
        {"clean": 73.33, "r": 36.66, "a": 6.78, "c": 50.85},
    ),
    Model(_CODE, "V-MoE S/32, 8 experts, 300 epochs", (), 224, {"clean": 73.1, "v2": 59.2}),
    Model(_CODE + "_ft_ilsvrc2012", "V-MoE S/32, fine-tuned at 384 px", (), 384, {"clean": 75.9, "v2": 62.0}),
)

# Facts of a model -> (what every model above has, the same in words)
_ARCHITECTURE: dict[str, tuple[tuple[Any, ...], str]] = {
    "num_classes": ((1000,), "1,000 classes"),
    "num_layers": ((8,), "8 blocks"),
    "hidden_size": ((512,), "width 512"),
    "patch_size_px": ((32,), "patches of 32 px"),
    "experts": ((8,), "8 experts"),
    "experts_per_token": ((2,), "2 experts of a patch"),
    # "The last two": of odd index in V-MoE's code, word for word in Appendix C.2.
    "moe_layers": (((5, 7), (6, 7)), "MoE layers in the last two blocks"),
}


def applies(result: Results) -> bool:
    """Whether there is anything to compare: the classes are ImageNet's and the results say what the model is."""
    known = all(getattr(result.model, name) is not None for name in _ARCHITECTURE)
    return known and result.data is not None and result.data.classes_are_imagenet


def models_of(result: Results) -> list[Model]:
    """The papers' models that a run is of; none if it differs in anything that :func:`differences` looks at.

    Args:
      result: of one run.
    """
    if not applies(result) or _differences_of_architecture(result.model):
        return []
    model = result.model
    return [m for m in MODELS if (m.inform, m.image_size_px) == (model.router.inform, model.image_size_px)]


def differences(result: Results) -> list[str]:
    """Differences of a run from the papers' models, in words; empty if it is of one of them.

    Args:
      result: of one run.
    """
    if models_of(result):
        return []
    model = result.model
    found = _differences_of_architecture(model)
    if not any(m.inform == model.router.inform for m in MODELS):
        found.append(f"a router informed by {' and '.join(model.router.inform)}")
    elif not any((m.inform, m.image_size_px) == (model.router.inform, model.image_size_px) for m in MODELS):
        found.append(f"images of {model.image_size_px} px")
    return found


def _differences_of_architecture(model: ModelFacts) -> list[str]:
    found = [
        f"{key.replace('_', ' ')} {_plain(getattr(model, key))} instead of {words}"
        for key, (allowed, words) in _ARCHITECTURE.items()
        if getattr(model, key) not in allowed
    ]
    score = model.router.score
    return [*found, *([f"router {score!r} instead of a linear one"] if score != "linear" else [])]


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:,}"
