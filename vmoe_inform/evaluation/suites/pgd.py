"""Projected gradient descent (Madry et al. 2017, arXiv 1706.06083) on test images."""

from vmoe_inform.config import ImageConfig
from vmoe_inform.evaluation.adversarial import MARGIN, ProjectedGradient
from vmoe_inform.evaluation.results import AttackFacts
from vmoe_inform.evaluation.suites._attacked import ROWS, attacked_suite
from vmoe_inform.evaluation.suites.base import Suite
from vmoe_inform.evaluation.suites.labelled import DETAILS
from vmoe_inform.evaluation.suites.registry import register


@register(
    "pgd",
    title="PGD: images changed by several steps against the model",
    short_title="PGD, many-step attack",
    rows=ROWS,
    details=DETAILS,
)
def projected_gradient(config: ImageConfig) -> Suite:
    """Several small steps from a random start (arXiv 1706.06083)."""
    settings = config.evaluation.attack
    attack = ProjectedGradient(settings.epsilon, settings.step_size, settings.num_steps, settings.seed)
    facts = AttackFacts(settings.epsilon, settings.num_steps, settings.step_size, loss=MARGIN)
    return attacked_suite("pgd", attack, facts, config, seed=settings.seed)
