"""Looks at sets of images: are they there, as many as published, with labels in range, and can they be decoded?"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import rich.table
import rich.text
from jaxtyping import UInt8

from vmoe_inform import text
from vmoe_inform.config import ImageConfig, ImageDataConfig
from vmoe_inform.data import sources
from vmoe_inform.data.images import contact_sheet, ilsvrc, label_sets, published
from vmoe_inform.data.images import pixels as images
from vmoe_inform.data.images.trees import FileRecords
from vmoe_inform.data.records import ArrayRecords, Source

NUM_DRAWN = 10  # images of each set on the contact sheet


@dataclasses.dataclass
class Finding:
    """What was found out about one set.

    Attributes:
      name: in the table.
      origin: as of :class:`Source`; empty if the set could not be opened.
      count: images (ReaL: lists of labels).
      expected_count: as published; None where any number is as good.
      num_classes: different labels among those that were looked at.
      decoded: images that were decoded, of those tried.
      problems: what is wrong, in words.
      missing: what to put where, if the set is not there.
      class_names: of the set's labels.
      images, captions: for the contact sheet.
    """

    name: str
    origin: str = ""
    count: int = 0
    expected_count: int | None = None
    num_classes: int = 0
    decoded: int = 0
    tried: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    missing: str = ""
    class_names: tuple[str, ...] = ()
    images: list[UInt8[np.ndarray, "P P 3"]] = dataclasses.field(default_factory=list)
    captions: list[str] = dataclasses.field(default_factory=list)


def examine(
    name: str, load: Callable[[], Source], expected_count: int | None, *, num_images: int, num_drawn: int = NUM_DRAWN
) -> Finding:
    """Opens a set and decodes some of its images, the first and the last among them.

    Args:
      name: of the set.
      load: opens it.
      expected_count: images it should have; None for any number.
      num_images: to decode.
      num_drawn: of these, for the contact sheet.
    """
    finding = Finding(name, expected_count=expected_count)
    try:
        source = load()
    except published.MissingSuiteError as problem:
        finding.missing = str(problem)
        return finding
    except (OSError, ValueError) as problem:
        finding.problems.append(str(problem))
        return finding
    finding.origin, finding.count = source.origin or "embedded", len(source.records)
    finding.class_names = source.class_names
    if expected_count not in (None, finding.count):
        finding.problems.append(f"expected {expected_count:,} images as published; received {finding.count:,}")
    labels: set[int] = set()
    if isinstance(source.records, ArrayRecords | FileRecords):
        labels = set(np.asarray(source.records.labels).tolist())
    tried = _spread(finding.count, num_images)
    drawn = {tried[position] for position in _spread(len(tried), num_drawn)}
    finding.tried = len(tried)
    for index in tried:
        label = _look_at(source, index, finding, draw=index in drawn)
        if label is not None:
            labels.add(label)
    finding.num_classes = len(labels)
    wrong = sorted(label for label in labels if not 0 <= label < source.num_classes)
    if wrong:
        finding.problems.append(f"labels: expected 0 to {source.num_classes - 1}; received {wrong[:5]}")
    return finding


def _spread(count: int, number: int) -> list[int]:
    """``number`` of 0 to ``count`` - 1, evenly, with the first and the last; all where there are no more."""
    return [round(position) for position in np.linspace(0, count - 1, min(number, count))]


def _look_at(source: Source, index: int, finding: Finding, *, draw: bool) -> int | None:
    """Decodes a record and returns its label; one that cannot be read is a problem with its name."""
    try:
        record = source.records[index]
        tile = images.to_square(record["image"], contact_sheet.TILE_PX)
    except (OSError, ValueError) as problem:
        finding.problems.append(f"{source.records.name(index)}: {problem}")
        return None
    finding.decoded += 1
    label = record["label"]
    if draw and 0 <= label < source.num_classes:
        finding.images.append(tile)
        finding.captions.append(label_sets.title(source.class_names[label]))
    return label


@dataclasses.dataclass(frozen=True)
class Request:
    """What the published images of a suite are examined for.

    Attributes:
      data: where to look.
      class_names: WordNet ids that the model knows, in the order of its labels.
      whole: whether numbers of images have to be the published ones.
      num_images: to decode of each set; of ImageNet-C of each corruption.
    """

    data: ImageDataConfig
    class_names: Sequence[str]
    whole: bool
    num_images: int

    def expected(self, count: int) -> int | None:
        """The published ``count`` if it has to be that, else None."""
        return count if self.whole else None


def examine_published(suite: published.PublishedSuite, request: Request) -> list[Finding]:
    """Opens a suite of one set."""
    load = functools.partial(published.load, suite, request.data, request.class_names)
    return [examine(suite.title, load, request.expected(suite.count), num_images=request.num_images)]


def examine_all(
    config: ImageConfig, suites: Iterable[Callable[[Request], list[Finding]]], *, whole: bool, num_images: int
) -> list[Finding]:
    """Both splits, and the published suites if the classes are ImageNet's.

    Args:
      config: whose data are looked at.
      suites: what examines each suite.
      whole: whether numbers of images have to be the published ones, where the model knows all of ImageNet's classes.
      num_images: to decode of each set; of ImageNet-C of each corruption.
    """
    data = config.data
    is_imagenet2012 = data.source == "folder" or data.tfds_name.partition(":")[0] == "imagenet2012"
    whole = whole and is_imagenet2012 and config.model.num_classes == len(label_sets.wordnet_ids())
    findings = []
    for split, count in ((data.train_split, ilsvrc.NUM_TRAIN_IMAGES), (data.test_split, ilsvrc.NUM_VALIDATION_IMAGES)):
        load = functools.partial(sources.load, data, split)
        finding = examine(split, load, count if whole else None, num_images=num_images)
        if finding.origin and len(finding.class_names) != config.model.num_classes:
            expected = f"expected {config.model.num_classes} classes (model.num_classes)"
            finding.problems.append(f"{expected}; received {len(finding.class_names)}")
        findings.append(finding)
    class_names = findings[-1].class_names or findings[0].class_names
    if class_names and label_sets.is_imagenet(class_names):
        request = Request(data, class_names, whole, num_images)
        findings += [finding for examine_suite in suites for finding in examine_suite(request)]
    return findings


def table(findings: Sequence[Finding]) -> rich.table.Table:
    """The findings, one row each."""
    result = rich.table.Table()
    for column in ("set", "found", "images", "published", "classes", "decoded", "sound"):
        result.add_column(
            column, justify="right" if column in ("images", "published", "classes", "decoded") else "left"
        )
    for finding in findings:
        cells = (
            finding.name,
            finding.origin.removeprefix("published ") or ("no" if finding.missing else "not readable"),
            f"{finding.count:,}" if finding.origin else "",
            "" if finding.expected_count is None else f"{finding.expected_count:,}",
            f"{finding.num_classes:,}" if finding.origin else "",
            f"{finding.decoded}/{finding.tried}" if finding.tried else "",
            "no" if finding.problems else ("yes" if finding.origin else ""),
        )
        result.add_row(*(rich.text.Text(text.printable(cell)) for cell in cells))  # in brackets is no markup
    return result
