"""ImageNet-Sketch (Wang et al. 2019, arXiv 1905.13549)."""

from vmoe_inform.config import ImageConfig
from vmoe_inform.data.images.published import PublishedSuite
from vmoe_inform.evaluation.suites import _imagenet
from vmoe_inform.evaluation.suites.base import Suite
from vmoe_inform.evaluation.suites.labelled import DETAILS, accuracy_suite
from vmoe_inform.evaluation.suites.registry import register

PUBLISHED = PublishedSuite("ImageNet-Sketch", ("sketch", "imagenet-sketch"), "imagenet_sketch", 50_889)


@register(
    "sketch",
    title="Sketch: drawings of the same classes",
    short_title="Sketch, drawings",
    details=DETAILS,
    published=PUBLISHED,
)
def drawings(config: ImageConfig) -> Suite:
    """Accuracy over all classes."""
    _imagenet.check_classes(config)
    return accuracy_suite("sketch", _imagenet.load(PUBLISHED, config))
