"""The same classes in another rendition: ImageNet-R (Hendrycks et al. 2021, arXiv 2006.16241), or prints of digits."""

from vmoe_inform.config import ImageConfig
from vmoe_inform.data.images.published import PublishedSuite
from vmoe_inform.data.sources import ArrayRecords, Source
from vmoe_inform.evaluation import glyphs
from vmoe_inform.evaluation.metric_registry import UNMASKED
from vmoe_inform.evaluation.suites import _imagenet
from vmoe_inform.evaluation.suites.base import NotAvailable, Suite, test_split
from vmoe_inform.evaluation.suites.labelled import DETAILS, accuracy_suite
from vmoe_inform.evaluation.suites.registry import register

PUBLISHED = PublishedSuite("ImageNet-R", ("imagenet-r",), "imagenet_r", 30_000, subset="r")

# Of scikit-learn's digits: prints are drawn at the resolution of the handwriting.
_DIGITS_SIZE_PX = 8


@register(
    "r",
    title="R: the same classes in another rendition",
    short_title="R, renditions",
    rows=(UNMASKED,),
    details=DETAILS,
    published=PUBLISHED,
)
def renditions(config: ImageConfig) -> Suite:
    """ImageNet-R among its own 200 classes; for digits, the glyphs of the fonts that matplotlib ships."""
    return _imagenet.masked("r", PUBLISHED, config) if _imagenet.has_imagenet_classes(config) else _prints(config)


def _prints(config: ImageConfig) -> Suite:
    if config.data.source != "digits":
        raise NotAvailable(
            f"source {config.data.source!r} has no other rendition of its classes built in: it would need a folder "
            "with drawings, prints or the like of the same classes, one folder each, as ImageNet-R is for ImageNet"
        )
    class_names = test_split(config.data).class_names
    images, positions = glyphs.glyphs("".join(class_names), _DIGITS_SIZE_PX)
    return accuracy_suite("r", Source(ArrayRecords(images, positions), class_names))
