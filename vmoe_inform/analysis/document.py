"""The content of analysis.json, from which every figure can be drawn.

Keys: ``run`` (what was looked at), ``layers`` (by block, see :mod:`vmoe_inform.analysis.collect.tables`),
``class_names``, and
``fluctuation``, ``against``, ``corruptions``, each None where it was not asked for. Within a layer are None: ``graph``
where tokens do not mix, ``margin`` and ``flips`` where no token chooses or there is no other choice, ``adjacency``
where no step multiplies a token's probabilities with a matrix of experts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vmoe_inform.analysis.collect import tables
from vmoe_inform.analysis.collect.tables import Table
from vmoe_inform.analysis.collect.traces import Trace
from vmoe_inform.analysis.collect.tracing import block_names
from vmoe_inform.axes import Int
from vmoe_inform.config import ModelConfig
from vmoe_inform.nn.vit import VisionTransformer

VERSION = 1


def analysis(
    run: Table,
    layers: Mapping[str, Table],
    class_names: Sequence[str],
    *,
    fluctuation: Table | None = None,
    against: Table | None = None,
    corruptions: Table | None = None,
) -> Table:
    """Puts the parts together."""
    return {
        "version": VERSION,
        "run": run,
        "layers": dict(layers),
        "class_names": list(class_names),
        "fluctuation": fluctuation,
        "against": against,
        "corruptions": corruptions,
    }


def of_trace(
    model: VisionTransformer,
    trace: Trace,
    labels: Int[Any, " n"],
    class_names: Sequence[str],
    *,
    name: str,
    step: int = 0,
    suite: str = "clean",
) -> Table:
    """The analysis of a trace, for notebooks: what the figures take.

    Args:
      model: that was traced.
      trace: with all fields; with graphs, if these are to be shown.
      labels: of the images.
      class_names: of the labels.
      name: of the run, for titles.
      step: of the checkpoint.
      suite: what the images are.

    Raises:
      ValueError: as :func:`vmoe_inform.analysis.collect.tables.layer_tables`.
    """
    layers = tables.layer_tables(trace, labels, num_classes=len(class_names))
    hits = trace.logits.argmax(-1) == labels
    run = run_facts(model.config, name=name, step=step, suite=suite, count=len(hits), top1=float(hits.mean()))
    return analysis(run, layers, class_names)


def run_facts(config: ModelConfig, *, name: str, step: int, suite: str, count: int, top1: float) -> Table:
    """What was looked at.

    Args:
      config: of the model.
      name: of the run.
      step: of the checkpoint.
      suite: what the images are.
      count: of images.
      top1: share of them that were named right.
    """
    side = config.image_size_px // config.patch_size_px
    return {
        "name": name,
        "step": step,
        "router": describe_router(config),
        "num_experts": config.moe.num_experts,
        "num_selected_experts": config.moe.num_selected_experts,
        "num_tokens": config.num_tokens,
        "class_token": config.classifier == "token",
        "grid": [side, side],
        "layers": block_names(config),
        "suite": suite,
        "count": count,
        "top1": top1,
    }


def describe_router(config: ModelConfig) -> str:
    """The router's steps in a few words; the usual way to select, the top K, goes without saying."""
    router = config.router
    select = "" if router.select == "top_experts" else f", {router.select}"
    return " + ".join((router.score, *router.inform_steps)) + select


def rounded(value: Any) -> Any:
    """The same with six digits of each number, which is more than they are known to: a third of the file."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
