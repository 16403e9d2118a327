"""ImageNet-V2 (Recht et al. 2019, arXiv 1902.10811)."""

from vmoe_inform.config import ImageConfig
from vmoe_inform.data.images.published import PublishedSuite
from vmoe_inform.evaluation.suites import _imagenet
from vmoe_inform.evaluation.suites.base import Suite
from vmoe_inform.evaluation.suites.labelled import DETAILS, accuracy_suite
from vmoe_inform.evaluation.suites.registry import register

PUBLISHED = PublishedSuite(
    "ImageNet-V2",
    ("imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency"),
    "imagenet_v2/matched-frequency",
    10_000,
    numbered=True,
)


@register(
    "v2",
    title="V2: a second test set, collected like the first",
    short_title="V2, second test set",
    details=DETAILS,
    published=PUBLISHED,
)
def second_test_set(config: ImageConfig) -> Suite:
    """Accuracy over all classes."""
    _imagenet.check_classes(config)
    return accuracy_suite("v2", _imagenet.load(PUBLISHED, config))
