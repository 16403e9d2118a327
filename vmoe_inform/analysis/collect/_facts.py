"""What was looked at: facts of a run and its model."""

from vmoe_inform.analysis.collect.tracing import block_names
from vmoe_inform.analysis.results import RunFacts
from vmoe_inform.config import ModelConfig, VisionModelConfig


def run_facts(config: VisionModelConfig, *, name: str, step: int, suite: str, count: int, top1: float) -> RunFacts:
    """What was looked at.

    Args:
      config: of the model.
      name: of the run.
      step: of the checkpoint.
      suite: what the images are.
      count: of images.
      top1: share of them that are classified correctly.
    """
    side = config.image_size_px // config.patch_size_px
    return RunFacts(
        name=name,
        step=step,
        router=describe_router(config),
        num_experts=config.moe.num_experts,
        num_selected_experts=config.moe.num_selected_experts,
        num_tokens=config.num_tokens,
        class_token=config.classifier == "token",
        grid=(side, side),
        layers=tuple(block_names(config)),
        suite=suite,
        count=count,
        top1=top1,
    )


def describe_router(config: ModelConfig) -> str:
    """The router's steps in a few words; top-K selection, the usual one, is left out."""
    router = config.router
    select = "" if router.select == "top_experts" else f", {router.select}"
    return " + ".join((router.score, *router.inform_steps)) + select
