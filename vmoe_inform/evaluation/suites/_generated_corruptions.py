"""Corruptions of the test split, generated: kept in files, or of a large split drawn while they are read."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Int, UInt8

from vmoe_inform.config import ImageConfig
from vmoe_inform.data import sources
from vmoe_inform.data.images import pipeline
from vmoe_inform.data.sources import ArrayRecords, Source
from vmoe_inform.evaluation import cache, corruptions
from vmoe_inform.evaluation.derived_records import CorruptedRecords
from vmoe_inform.evaluation.suites.base import NotAvailable, test_split

GENERATED = "generated"
LoadSet = Callable[[str, int], Source]  # corruption and severity -> the set

# A set that is kept is made and held whole, and there are 75; larger ones are drawn while they are read.
_LARGEST_SET_BYTES = 64 * 1024**2


def uncorrupted(config: ImageConfig) -> Source:
    """The test images that generated corruptions are drawn of."""
    source, number = test_split(config.data), config.evaluation.corrupted_images
    if number is None:
        return source
    return dataclasses.replace(source, records=source.records.selected(sources.evenly(source, number)))


def generated(config: ImageConfig) -> LoadSet:
    """A generated set at the model's image size: from the cache, or drawn while it is read.

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
    source = uncorrupted(config)
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


def _drawn_while_read(source: Source, config: ImageConfig, corruption: str, severity: int) -> Source:
    records = CorruptedRecords(
        source.records,
        config.model.image_size_px,
        source.framing_in(config.data),
        corruption,
        severity,
        config.evaluation.corruption_seed,
    )
    return Source(records, source.class_names, GENERATED)


def _from_cache(source: Source, config: ImageConfig) -> LoadSet:
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


def _in_memory(source: Source, config: ImageConfig) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, P, P, 3] and labels [n] of all readable records, in their order."""
    in_memory = isinstance(source.records, ArrayRecords)
    skipped = pipeline.SkippedRecords(config.data.max_skipped_share)
    batches = list(
        pipeline.evaluation_batches(
            source,
            image_size_px=config.model.image_size_px,
            batch_size=config.evaluation.batch_size,
            skipped=skipped,
            framing=source.framing_in(config.data),
            num_threads=0 if in_memory else config.data.num_threads,
            num_workers=pipeline.workers_for_one_pass(source, config.data),
        )
    )
    images, labels, indices = (
        np.concatenate([batch[name][batch["mask"]] for batch in batches]) for name in ("image", "label", "index")
    )
    order = np.argsort(indices)
    return images[order], labels[order]
