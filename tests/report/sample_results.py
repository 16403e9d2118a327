"""Invented results: of two small runs, to check by eye, and of three on ImageNet with every suite."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from vmoe_inform.evaluation.corruptions import CORRUPTIONS
from vmoe_inform.evaluation.results import (
    AttackFacts,
    CleanData,
    LayerRouting,
    Missing,
    ModelFacts,
    Reliability,
    Results,
    RiskCoverage,
    RouterFacts,
    SuiteResult,
    WorstClass,
)


def results() -> dict[str, Results]:
    """A run with every suite, and one that lacks some and asked for one that has no data."""
    clean = SuiteResult(
        count=200,
        metrics={"top1": 0.9, "top5": 1.0, "nll": 0.25, "ece": 0.07},
        skipped=3,
        # 0.25 * 20 / 200 + 0.05 * 180 / 200
        reliability=Reliability(confidence=(0.25, 0.5, 0.9), accuracy=(0.5, 0.0, 0.95), count=(20, 0, 180)),
    )
    corrupted = SuiteResult(
        count=200,
        metrics={"mean_top1": 0.6},
        headline="mean_top1",
        per_corruption={"shot_noise": (0.9, 0.8, 0.6, 0.5, 0.4), "fog": (0.8, 0.7, 0.5, 0.4, 0.4)},
        origin="generated",
    )
    others = SuiteResult(count=100, metrics={"aupr": 0.75, "count_in_distribution": 200}, headline="aupr")
    attention = Results(
        checkpoint_step=1380,
        config_hash="0123456789abcdef",
        model=ModelFacts(1234567, RouterFacts("linear", ("attention",))),
        suites={
            "clean": clean,
            "c": corrupted,
            "r": SuiteResult(count=400, metrics={"top1": 0.5, "nll": 1.5}),
            "o": others,
        },
        routing={
            "block_1": LayerRouting(1.0, (0.5, 0.25, 0.25, 0.0), 6.5, 0.01),
            "block_3": LayerRouting(1.2, (0.25,) * 4, 4.0, 0.0),
        },
    )
    plain = Results(
        checkpoint_step=1380,
        config_hash="fedcba9876543210",
        model=ModelFacts(1234567, RouterFacts("linear")),
        suites={"clean": SuiteResult(count=200, metrics={"top1": 0.8, "top5": 1.0, "nll": 0.5, "ece": 0.1})},
        routing={"block_1": LayerRouting(0.8, (0.25,) * 4, None, 0.02)},
        missing={"r": Missing("put the fonts into DIRECTORY <here>")},
    )
    return {"attention_vmoe": attention, "vmoe": plain}


def with_suite(found: Mapping[str, Results], run: str, suite: str, **changes: object) -> dict[str, Results]:
    """The results with another result of one suite of one run."""
    of_run = found[run]
    changed = dataclasses.replace(of_run.suites[suite], **changes)
    return {**found, run: dataclasses.replace(of_run, suites={**of_run.suites, suite: changed})}


def example(**changes: object) -> dict:
    """An 8 px image in 2 x 2 patches with two MoE layers."""
    image = np.full((8, 8, 3), 128, np.uint8)
    experts = {"block_1": np.array([[0, 1], [2, 3]]), "block_3": np.array([[3, 3], [0, 0]])}
    return {"image": image, "label": "3", "prediction": "3", "confidence": 0.9, "experts": experts, **changes}


WORST_CLASSES = (
    WorstClass("n04525038", 0.08, 50, "velvet"),
    WorstClass("n04355933", 0.1, 50, "sunglass"),
    WorstClass("n03642806", 0.125, 40, "laptop, laptop computer"),
)


def imagenet_results() -> dict[str, Results]:
    """V-MoE S/32 and its two informed kinds with every suite; one of them has drawn its C itself."""
    informs = {"vmoe": (), "similarity_vmoe": ("similarity",), "attention_vmoe": ("attention",)}
    found = {run: _imagenet_run(inform, gain=0.01 * place) for place, (run, inform) in enumerate(informs.items())}
    return with_suite(found, "similarity_vmoe", "c", origin="generated")


def _imagenet_run(inform: tuple[str, ...], gain: float) -> Results:
    confidence = (np.arange(15) + 0.5) / 15
    reliability = Reliability(
        confidence=tuple(confidence.tolist()),
        accuracy=tuple(np.clip(confidence - 0.05 + gain, 0, 1).tolist()),
        count=tuple((1000 + 4000 * confidence).astype(int).tolist()),
    )
    corruptions = {
        name: tuple((0.7 + gain - 0.01 * place - np.array([0.05, 0.12, 0.2, 0.3, 0.4])).tolist())
        for place, name in enumerate(CORRUPTIONS)
    }

    def labelled(top1: float, count: int, origin: str = "published folder", **metrics: float) -> SuiteResult:
        coverage = np.arange(1, 21) / 20
        return SuiteResult(
            count=count,
            metrics={"top1": top1 + gain, "aurc": 0.1 - gain, **metrics},
            origin=origin,
            risk_coverage=RiskCoverage(tuple(coverage.tolist()), tuple(((0.27 - gain) * coverage**2).tolist())),
            worst_classes=WORST_CLASSES,
        )

    def masked(top1: float, unmasked: float, count: int, origin: str) -> SuiteResult:
        found = labelled(top1, count, origin, top1_unmasked=unmasked + gain, nll=4.1)
        return dataclasses.replace(found, standard_errors={"top1_unmasked": 0.0015}, classes=200)

    def attacked(top1: float, num_steps: int) -> SuiteResult:
        return SuiteResult(
            count=50_000,
            metrics={"top1": top1 + gain, "clean_top1": 0.7271, "without_gradient": 0.0021},
            origin="TFDS",
            attack=AttackFacts(1.0, num_steps, loss="margin"),
            seed=0,
        )

    suites = {
        "clean": dataclasses.replace(
            labelled(0.7271, 50_000, "TFDS", top5=0.905, nll=1.1, ece=0.031), reliability=reliability
        ),
        "c": SuiteResult(
            count=50_000,
            metrics={"mean_top1": 0.48 + gain, "mce": 0.66 - gain, "relative_mce": 0.92 - gain},
            headline="mean_top1",
            standard_errors={"mean_top1": 0.0018},
            origin="published folder",
            per_corruption=corruptions,
        ),
        "r": masked(0.3542, 0.24, 30_000, "published folder"),
        "a": masked(0.0527, 0.02, 7_500, "published tar"),
        "o": SuiteResult(
            count=2_000,
            metrics={"aupr": 0.21 + gain, "count_in_distribution": 10_000},
            headline="aupr",
            classes=200,
            origin="published folder",
        ),
        "v2": labelled(0.592, 10_000, top5=0.81, nll=1.9),
        "sketch": labelled(0.21, 50_889, top5=0.37, nll=5.2),
        "real": labelled(0.794, 46_837, "TFDS", excluded=3_163),
        "fgsm": attacked(0.31, num_steps=1),
        "pgd": attacked(0.12, num_steps=10),
        "fewshot": SuiteResult(count=50_000, metrics={"top1": 0.61}, top1_by_shots={"1": 0.31, "5": 0.55, "10": 0.61}),
        "linear": SuiteResult(count=50_000, metrics={"top1": 0.68 + gain}),
    }
    return Results(
        checkpoint_step=46_900,
        config_hash="0123456789abcdef",
        model=ModelFacts(
            parameters=57_300_000,
            router=RouterFacts("linear", inform),
            experts=8,
            experts_per_token=2,
            num_classes=1000,
            image_size_px=224,
            patch_size_px=32,
            num_layers=8,
            hidden_size=512,
            moe_layers=(5, 7),
        ),
        suites=suites,
        routing={
            f"block_{block}": LayerRouting(1.5 - 10 * gain, (0.125,) * 6 + (0.2, 0.05), 12.5 if inform else 1.0, 0.001)
            for block in (5, 7)
        },
        seed=0,
        data=CleanData("tfds", classes_are_imagenet=True),
    )


def imagenet_examples() -> list[dict]:
    """Images of 224 px: one named right, two named wrong, of those one in patches too small for numbers."""
    rows, columns = np.mgrid[:224, :224]
    image = np.stack([rows, columns, 255 - rows], axis=-1).astype(np.uint8)
    coarse = {f"block_{block}": (np.arange(49).reshape(7, 7) * block) % 8 for block in (5, 7)}
    fine = {f"block_{block}": (np.arange(196).reshape(14, 14) // block) % 9 for block in (5, 7)}
    shark, laptop = "n01484850", "n03642806"
    return [
        {"image": image, "label": shark, "prediction": shark, "confidence": 0.95, "experts": coarse},
        {"image": image, "label": shark, "prediction": laptop, "confidence": 0.4, "experts": coarse},
        {"image": image, "label": laptop, "prediction": shark, "confidence": 0.31, "experts": fine},
    ]
