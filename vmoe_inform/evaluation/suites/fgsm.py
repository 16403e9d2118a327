"""The fast gradient sign method (Goodfellow et al. 2014, arXiv 1412.6572) on test images."""

from vmoe_inform.config import ImageConfig
from vmoe_inform.evaluation.adversarial import MARGIN, FastGradientSign
from vmoe_inform.evaluation.results import AttackFacts
from vmoe_inform.evaluation.suites._attacked import ROWS, attacked_suite
from vmoe_inform.evaluation.suites.base import Suite
from vmoe_inform.evaluation.suites.labelled import DETAILS
from vmoe_inform.evaluation.suites.registry import register


@register(
    "fgsm",
    title="FGSM: images changed by one step against the model",
    short_title="FGSM, one-step attack",
    rows=ROWS,
    details=DETAILS,
)
def fast_gradient_sign(config: ImageConfig) -> Suite:
    """One step along the sign of the gradient (arXiv 1412.6572)."""
    epsilon = config.evaluation.attack.epsilon
    return attacked_suite("fgsm", FastGradientSign(epsilon), AttackFacts(epsilon, num_steps=1, loss=MARGIN), config)
