"""C: the test images under 15 corruptions in five severities (Hendrycks and Dietterich 2019, arXiv 1903.12261).

ImageNet-C is published as files. Where they are missing, and for other data sets, the corruptions are generated; such
figures are marked, since they are not quite those of the published files, which were drawn from larger images.
"""

import functools
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int, UInt8

from vmoe_inform.config import Config
from vmoe_inform.data import pipeline
from vmoe_inform.data.images import label_sets, published
from vmoe_inform.data.sources import ArrayRecords, Source
from vmoe_inform.evaluation import cache, corruptions, metrics
from vmoe_inform.evaluation.records import CorruptedRecords
from vmoe_inform.evaluation.suites.base import (
    CLEAN,
    IMAGENET_SUITES,
    MINI_SUITES,
    Entry,
    ImageSet,
    NotAvailable,
    Predictions,
    Scores,
    Suite,
    predict_whole,
    test_split,
)

GENERATED = "generated"
LoadSet = Callable[[str, int], Source]  # corruption and severity -> the set

# A set that is kept is made and held whole, and there are 75; larger ones are drawn while they are read.
_LARGEST_SET_BYTES = 64 * 1024**2


@MINI_SUITES.register("c")
def corrupted(config: Config) -> Suite:
    """Generated corruptions of the test split: kept in files, or of a large split drawn while they are read."""
    return _suite(_generated(config), GENERATED, config, clean={})


@IMAGENET_SUITES.register("c")
def imagenet_c(config: Config) -> Suite:
    """ImageNet-C as published or else generated; of all 1,000 classes also relative to AlexNet's errors."""
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
            load_set, origin = _generated(config), GENERATED
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
    clean = {CLEAN: ImageSet(lambda: test_split(config.data))} if comparable else {}
    return _suite(load_set, origin, config, clean=clean)


def _suite(load_set: LoadSet, origin: str, config: Config, *, clean: Mapping[str, ImageSet]) -> Suite:
    def load_of_origin(corruption: str, severity: int) -> Source:
        source = load_set(corruption, severity)
        if _publisher(source.origin) != _publisher(origin):
            raise NotAvailable(
                f"all 75 sets have to be of one origin: expected {corruption}/{severity} from a {origin}, where the "
                f"first set is from; found it in a {source.origin}"
            )
        return source

    settings = {"seed": config.evaluation.corruption_seed} if origin == GENERATED else {}
    sets = {
        f"{corruption}/{severity}": ImageSet(
            functools.partial(load_of_origin, corruption, severity), predict_whole, settings
        )
        for corruption in corruptions.CORRUPTIONS
        for severity in corruptions.SEVERITIES
    }

    def summarize(scores: Mapping[str, Scores]) -> Entry:
        entry = _summarize({name: own for name, own in scores.items() if name != CLEAN})
        if CLEAN in scores:
            entry |= against_alexnet(entry["per_corruption"], float(scores[CLEAN]["hit"].mean()))
        if origin == GENERATED:  # of images that could not be read, no versions are made
            entry |= {"generated": True, "skipped": len(test_split(config.data).records) - entry["count"]}
        return entry

    def made_from() -> list[Source]:
        """Of 75 published sets three, since it takes long to list them all; else what they are generated from."""
        names = list(sets)
        chosen = [] if origin == GENERATED else [sets[names[n]].load() for n in (0, len(names) // 2, -1)]
        return chosen or [test_split(config.data)]

    return Suite("c", {**clean, **sets}, _score, summarize, origin, made_from)


def _publisher(origin: str) -> str:
    """Folders and tars have the same images."""
    return origin.removesuffix(" folder").removesuffix(" tar")


def _score(_: str, predictions: Predictions) -> Scores:
    return {
        "index": predictions.indices.astype(np.int32),
        "hit": metrics.top_k_hits(predictions.logits, predictions.labels, 1),
        "skipped": np.asarray(predictions.skipped),
    }


def _summarize(scores: Mapping[str, Scores]) -> Entry:
    """Mean over the 75 sets, and each corruption's own figures."""
    sizes = {name: len(own["hit"]) + int(own["skipped"]) for name, own in scores.items()}
    size = max(sizes.values())
    for name, received in sizes.items():
        if received != size:
            raise NotAvailable(f"all 75 sets have to show the same {size} images: found {received} in {name}")
    top1 = {
        name: [float(scores[f"{name}/{severity}"]["hit"].mean()) for severity in corruptions.SEVERITIES]
        for name in corruptions.CORRUPTIONS
    }
    # The sets show the same images, so it is over the images that the mean is uncertain.
    index = np.concatenate([own["index"] for own in scores.values()])
    hits = np.concatenate([own["hit"] for own in scores.values()])
    times_shown = np.bincount(index, minlength=size)
    of_image = np.bincount(index, weights=hits, minlength=size)[times_shown > 0] / times_shown[times_shown > 0]
    return {
        "mean_top1": float(np.mean(list(top1.values()))),
        "mean_top1_standard_error": metrics.standard_error(of_image),
        "per_corruption": top1,
        "count": len(of_image),
        "skipped": max(int(own["skipped"]) for own in scores.values()),
    }


def against_alexnet(top1: Mapping[str, list[float]], clean_top1: float) -> Entry:
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


def _generated(config: Config) -> LoadSet:
    """How a set is generated at the model's image size: from the cache, or drawn while it is read.

    The first set of the cache that is loaded makes all that are missing, since together they can share the
    processor's cores. At 32 px all 75 sets take about 0.13 s of one core and 230 kB of disk for each test image.
    """
    size = config.model.image_size_px
    if size < corruptions.MINIMUM_SIZE_PX:
        raise NotAvailable(
            f"the corruptions are for images of {corruptions.MINIMUM_SIZE_PX} px or more, and model.image_size_px is "
            f"{size}"
        )
    if not corruptions.is_installed():
        raise NotAvailable(
            "the package that draws the corruptions is not installed: "
            f"pip install --no-deps {corruptions.DISTRIBUTION}=={corruptions.VERSION}"
        )
    source = test_split(config.data)
    set_bytes = len(source.records) * size * size * 3
    if set_bytes <= _LARGEST_SET_BYTES:
        return _from_cache(source, config)
    if config.evaluation.generate_corruptions:
        return functools.partial(_drawn_while_read, source, config)
    raise NotAvailable(
        f"generated corruptions are kept for test sets of up to {_LARGEST_SET_BYTES / 1e6:.0f} MB of pixels, these are "
        f"{set_bytes / 1e6:,.0f} MB: python -m vmoe_inform.evaluate --generate_corruptions draws them while they are "
        "read, which takes long"
    )


def _drawn_while_read(source: Source, config: Config, corruption: str, severity: int) -> Source:
    records = CorruptedRecords(
        source.records,
        config.model.image_size_px,
        config.data.evaluation_crop,
        corruption,
        severity,
        config.evaluation.corruption_seed,
    )
    return Source(records, source.class_names, GENERATED)


def _from_cache(source: Source, config: Config) -> LoadSet:
    directory = cache.cache_directory(config.evaluation.cache_directory)
    seed = config.evaluation.corruption_seed

    # Once for all sets, and not before one is wanted.
    @functools.cache
    def clean_images() -> tuple[UInt8[np.ndarray, "n P P 3"], Int[np.ndarray, " n"]]:
        return _in_memory(source, config)

    @functools.cache
    def generate() -> None:
        corruptions.generate_all(clean_images()[0], seed=seed, directory=directory)

    def load_set(corruption: str, severity: int) -> Source:
        generate()
        images, labels = clean_images()
        drawn = corruptions.load(images, corruption, severity, seed=seed, directory=directory)
        return Source(ArrayRecords(drawn, labels), source.class_names, GENERATED)

    return load_set


def _in_memory(source: Source, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, P, P, 3] and labels [n] of all readable records, in their order."""
    in_memory = isinstance(source.records, ArrayRecords)
    skipped = pipeline.SkippedRecords(config.data.max_skipped_share)
    batches = list(
        pipeline.evaluation_batches(
            source,
            image_size_px=config.model.image_size_px,
            batch_size=config.evaluation.batch_size,
            skipped=skipped,
            crop=config.data.evaluation_crop,
            num_threads=0 if in_memory else config.data.num_threads,
            num_workers=pipeline.workers_for_one_pass(source, config.data),
        )
    )
    images, labels, indices = (
        np.concatenate([batch[name][batch["mask"]] for batch in batches]) for name in ("image", "label", "index")
    )
    order = np.argsort(indices)
    return images[order], labels[order]
