"""What was looked at: facts of a run and its model."""

from vmoe_inform.analysis.collect.recording import block_names
from vmoe_inform.analysis.results import RunFacts
from vmoe_inform.config import LanguageModelConfig, ModelConfig


def run_facts(
    config: ModelConfig, unit: str, *, name: str, step: int, suite: str, count: int, metric: str, score: float
) -> RunFacts:
    """What was looked at; args as of :class:`RunFacts`.

    Args:
      config: of the model.
      unit, name, step, suite, count, metric, score: as there.
    """
    return RunFacts(
        name=name,
        step=step,
        router=describe_router(config),
        num_experts=config.moe.num_experts,
        num_selected_experts=config.moe.num_selected_experts,
        num_tokens=config.num_tokens,
        layers=tuple(block_names(config)),
        suite=suite,
        unit=unit,
        count=count,
        metric=metric,
        score=score,
        looks_ahead=isinstance(config, LanguageModelConfig) and config.allow_future,
    )


def describe_router(config: ModelConfig) -> str:
    """The router's steps in a few words; top-K selection, the usual one, is left out."""
    router = config.router
    select = "" if router.select == "top_experts" else f", {router.select}"
    return " + ".join((router.score, *router.inform_steps)) + select
