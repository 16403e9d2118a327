"""What a causal model refuses: whatever would let a token depend on later ones.

``model.causal`` decides the mask that every step of a router is given. The model's ``allow_future`` lifts it.
"""

from vmoe_inform import checks
from vmoe_inform.config.settings import ModelConfig
from vmoe_inform.routing import steps

_CAUSAL = "in a causal model (or model.allow_future = True)"


def check(model: ModelConfig) -> None:
    """Raises ValueError for a setting with which routing would look at later tokens of a causal model.

    Args:
      model: whose steps are registered.
    """
    if not model.layer_sizes.causal:
        return
    for name in model.router.step_names:
        if steps.all_steps()[name].may_look_ahead:
            expected = f"steps that do not look at later tokens, {_CAUSAL}"
            raise checks.error(f"model.router.{_field_of(model, name)}", expected, name)
    if model.moe.batch_priority:
        expected = f"false {_CAUSAL}: later tokens would take the slots of earlier ones"
        raise checks.error("model.moe.batch_priority", expected, True)
    if model.moe.capacity_factor_evaluation is not None:
        expected = f"None (no token is dropped) {_CAUSAL}"
        raise checks.error("model.moe.capacity_factor_evaluation", expected, model.moe.capacity_factor_evaluation)


def future_choices(model: ModelConfig) -> tuple[str, ...]:
    """Settings by which the choice of experts looks at later tokens of a causal model, in training or evaluation.

    They are possible with ``allow_future`` only. The likelihoods of such a model are no perplexity. Inform steps are
    not among them: their unmasked sums are the papers', whose perplexities are reported and labelled.

    Returns:
      fields of the config with their values; empty if experts are chosen without looking ahead.
    """
    if not (model.causal and model.allow_future):
        return ()
    found = []
    for name in (model.router.score, model.router.select):
        if steps.all_steps()[name].may_look_ahead:
            found.append(f"model.router.{_field_of(model, name)} = {name!r}")
    for field in ("batch_priority", "capacity_factor", "capacity_factor_evaluation"):
        if value := getattr(model.moe, field):
            found.append(f"model.moe.{field} = {value!r}")
    return tuple(found)


def _field_of(model: ModelConfig, step: str) -> str:
    """The field of the router that names a step."""
    router = model.router
    if step in router.inform_steps:
        return "inform_by_layer" if router.inform_by_layer else "inform"
    return {router.score: "score", router.select: "select"}.get(step, "losses")
