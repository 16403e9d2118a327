"""C: the test images under 15 corruptions in five severities (Hendrycks and Dietterich 2019, arXiv 1903.12261).

ImageNet-C is published as files. Where they are missing, and for other data sets, the corruptions are generated. Such
scores are marked. They differ slightly from those of the published files, which were drawn from larger images.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from vmoe_inform.config import ImageConfig
from vmoe_inform.data import inspection
from vmoe_inform.data.images import label_sets, published
from vmoe_inform.data.images.framing import WHOLE
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import corruptions, metrics
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.evaluation.paired import Contributions
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites import _imagenet
from vmoe_inform.evaluation.suites._generated_corruptions import GENERATED, LoadSet, generated, uncorrupted
from vmoe_inform.evaluation.suites.base import (
    TEST_SET,
    NotAvailable,
    Predictions,
    RecordSet,
    Scores,
    Suite,
    test_split,
)
from vmoe_inform.evaluation.suites.registry import register

ROWS = (
    Metric("mce", "mean corruption error, in % of AlexNet's", "mCE, less is better", "ratio", less_is_better=True),
    Metric(
        "relative_mce",
        "relative mean corruption error, in % of AlexNet's",
        "relative mCE, less is better",
        "ratio",
        less_is_better=True,
    ),
)


def examine(request: inspection.Request) -> list[inspection.Finding]:
    """One finding for each corruption of ImageNet-C; one for all where nothing is there."""
    findings = []
    for corruption in published.CORRUPTIONS:
        each = [
            inspection.examine(
                f"{severity}",
                functools.partial(published.load_corruption, corruption, severity, request.data, request.class_names),
                request.expected(published.IMAGENET_C.count),
                num_images=-(-request.num_images // len(published.SEVERITIES)),
                num_drawn=inspection.NUM_DRAWN // len(published.SEVERITIES),
            )
            for severity in published.SEVERITIES
        ]
        findings.append(_together(f"C {corruption}", each))
    if all(finding.missing and not finding.origin and not finding.problems for finding in findings):
        return [inspection.Finding("ImageNet-C", missing=findings[0].missing)]
    return findings


def _together(name: str, each: Sequence[inspection.Finding]) -> inspection.Finding:
    """The severities of a corruption as one finding; a single missing one is a problem."""
    found = [finding for finding in each if finding.origin]
    problems = [f"severity {finding.name}: {problem}" for finding in each for problem in finding.problems]
    missing = next((finding.missing for finding in each if finding.missing), "")
    if found and missing:
        problems.append(missing)
    expected = [finding.expected_count for finding in found if finding.expected_count is not None]
    return inspection.Finding(
        name,
        origin=", ".join(sorted({finding.origin for finding in found})),
        count=sum(finding.count for finding in found),
        expected_count=sum(expected) if expected else None,
        num_classes=max((finding.num_classes for finding in found), default=0),
        decoded=sum(finding.decoded for finding in found),
        tried=sum(finding.tried for finding in found),
        problems=problems,
        missing="" if found else missing,
        images=[image for finding in found for image in finding.images],
        captions=[f"{finding.name}: {text}" for finding in found for text in finding.captions],
    )


@register(
    "c",
    title="C: corrupted images",
    short_title="C, corrupted",
    metric=Metric("mean_top1", "mean top-1 accuracy"),
    rows=ROWS,
    published=published.IMAGENET_C,
    examine=examine,
)
def corrupted(config: ImageConfig) -> Suite:
    """ImageNet-C as published or else generated; for other classes generated."""
    if _imagenet.has_imagenet_classes(config):
        return _imagenet_c(config)
    return _suite(generated(config), GENERATED, config, clean={})


def _imagenet_c(config: ImageConfig) -> Suite:
    """As published or else generated; of all 1,000 classes also relative to AlexNet's errors."""
    class_names = test_split(config.data).class_names

    def load_published(corruption: str, severity: int) -> Source:
        try:
            return published.load_corruption(corruption, severity, config.data, class_names)
        except published.MissingSuiteError as problem:
            raise NotAvailable(str(problem)) from None

    load_set: LoadSet = load_published
    try:
        origin = load_set(corruptions.CORRUPTIONS[0], corruptions.SEVERITIES[0]).origin
    except NotAvailable as not_published:
        try:
            load_set, origin = generated(config), GENERATED
        except NotAvailable as not_generated:
            raise NotAvailable(f"{not_published}. Nor can it be generated: {not_generated}") from None
    absent = [] if origin == GENERATED else published.missing_corruptions(config.data)
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise NotAvailable(
            f"ImageNet-C is evaluated whole: expected 75 sets; {', '.join(absent[:5])}{more} are in none of the places "
            "where others are"
        )
    # AlexNet told 1,000 classes apart: its errors say nothing about fewer.
    comparable = len(class_names) == len(label_sets.wordnet_ids())
    clean = {TEST_SET: RecordSet(lambda: test_split(config.data))} if comparable else {}
    return _suite(load_set, origin, config, clean=clean)


def _suite(load_set: LoadSet, origin: str, config: ImageConfig, *, clean: Mapping[str, RecordSet]) -> Suite:
    def load_of_origin(corruption: str, severity: int) -> Source:
        source = load_set(corruption, severity)
        if _publisher(source.origin) != _publisher(origin):
            raise NotAvailable(
                f"all 75 sets have to be of one origin: expected {corruption}/{severity} from a {origin}, where the "
                f"first set is from; found it in a {source.origin}"
            )
        return dataclasses.replace(source, framing=WHOLE)  # as they were cropped before they were corrupted

    settings = {"seed": config.evaluation.corruption_seed} if origin == GENERATED else {}
    sets = {
        f"{corruption}/{severity}": RecordSet(
            functools.partial(load_of_origin, corruption, severity), settings=settings
        )
        for corruption in corruptions.CORRUPTIONS
        for severity in corruptions.SEVERITIES
    }

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        result = _summarize({name: own for name, own in scores.items() if name != TEST_SET})
        if TEST_SET in scores:
            errors = against_alexnet(result.per_corruption, float(scores[TEST_SET]["hit"].mean()))
            result = dataclasses.replace(result, metrics={**result.metrics, **errors})
        if origin == GENERATED:  # of images that could not be read, no versions are made
            result = dataclasses.replace(result, skipped=len(uncorrupted(config).records) - result.count)
        return result

    def made_from() -> list[Source]:
        """Of 75 published sets three, since it takes long to list them all; else what they are generated from."""
        names = list(sets)
        chosen = [] if origin == GENERATED else [sets[names[n]].load() for n in (0, len(names) // 2, -1)]
        return chosen or [uncorrupted(config)]

    return Suite("c", {**clean, **sets}, _score, summarize, origin, made_from, contributions=_contributions)


def _publisher(origin: str) -> str:
    """Folders and tars have the same images."""
    return origin.removesuffix(" folder").removesuffix(" tar")


def _contributions(scores: Mapping[str, Scores]) -> dict[str, Contributions]:
    """Of the mean over the 75 sets, which show the same images."""
    shown = [own for name, own in scores.items() if name != TEST_SET]
    index = np.concatenate([own["index"] for own in shown])
    hits = np.concatenate([own["hit"] for own in shown])
    weights = np.concatenate([np.full(len(own["hit"]), 1 / len(own["hit"])) for own in shown])
    images, places = np.unique(index, return_inverse=True)
    of_images = Contributions(images, np.bincount(places, hits * weights), np.bincount(places, weights))
    return {"mean_top1": of_images}


def _score(_: str, predictions: Predictions) -> Scores:
    return {
        "index": predictions.indices.astype(np.int32),
        "hit": metrics.top_k_hits(predictions.logits, predictions.labels, 1),
        "skipped": np.asarray(predictions.skipped),
    }


def _summarize(scores: Mapping[str, Scores]) -> SuiteResult:
    """Mean over the 75 sets, and each corruption's own accuracies."""
    sizes = {name: len(own["hit"]) + int(own["skipped"]) for name, own in scores.items()}
    size = max(sizes.values())
    for name, received in sizes.items():
        if received != size:
            raise NotAvailable(f"all 75 sets have to show the same {size} images: found {received} in {name}")
    top1 = {
        name: tuple(float(scores[f"{name}/{severity}"]["hit"].mean()) for severity in corruptions.SEVERITIES)
        for name in corruptions.CORRUPTIONS
    }
    # The sets show the same images, so it is over the images that the mean is uncertain.
    index = np.concatenate([own["index"] for own in scores.values()])
    hits = np.concatenate([own["hit"] for own in scores.values()])
    times_shown = np.bincount(index, minlength=size)
    of_image = np.bincount(index, weights=hits, minlength=size)[times_shown > 0] / times_shown[times_shown > 0]
    return SuiteResult(
        count=len(of_image),
        metrics={"mean_top1": float(np.mean(list(top1.values())))},
        headline="mean_top1",
        standard_errors={"mean_top1": metrics.standard_error(of_image)},
        skipped=max(int(own["skipped"]) for own in scores.values()),
        per_corruption=top1,
    )


def against_alexnet(top1: Mapping[str, Sequence[float]], clean_top1: float) -> dict[str, float]:
    """Mean corruption error and the relative one, in units of AlexNet's (arXiv 1903.12261, Sec. 4.2).

    Args:
      top1: by corruption, accuracies [5] over the severities.
      clean_top1: accuracy on the images as they are.
    """
    reference, reference_clean = label_sets.alexnet_errors()
    errors = {name: 1 - np.asarray(of_one) for name, of_one in top1.items()}
    return {
        "mce": metrics.mean_corruption_error(errors, reference),
        "relative_mce": metrics.relative_mean_corruption_error(errors, 1 - clean_top1, reference, reference_clean),
    }
