"""The routing of some texts by a run, word by word."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform.analysis.collect.recording import GRAPH, real_tokens, records
from vmoe_inform.analysis.collect.views import KEPT, layer_views
from vmoe_inform.analysis.text.views import Expected, TextView
from vmoe_inform.axes import Array, Bool, Float, Int, Tree
from vmoe_inform.config import as_language
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.evaluation.runner import Runner
from vmoe_inform.nn.cross_entropy import HeadInputs
from vmoe_inform.runs.run import Run
from vmoe_inform.tasks.task import Batch

_NUM_LIKELY = 3


@dataclasses.dataclass(frozen=True)
class ShownTexts:
    """Texts as the model got them, and their routing.

    Attributes:
      tokens: ids.
      targets: the token after each; None for classifiers.
      labels: class of each text; None for language models.
      real: False for filler.
      view: of the run.
    """

    tokens: Int[np.ndarray, "n N"]
    targets: Int[np.ndarray, "n N"] | None
    labels: Int[np.ndarray, " n"] | None
    real: Bool[np.ndarray, "n N"]
    view: TextView


def shown_by_run(run: Run, source: Any, number: int) -> ShownTexts:
    """Shows a run the first batch of a source, and keeps what it does with some rows of it, evenly over the batch.

    Args:
      run: on tokens.
      source: records of its task.
      number: rows at most.
    """
    runner, config = Runner.of(run), as_language(run.config).model
    count = min(run.config.evaluation.batch_size, runner.task.num_examples(source))
    shown = np.arange(min(number, count)) * count // min(number, count)

    def look(variables: Tree, batch: Batch, memory: Tree | None) -> tuple[Any, Tree | None]:
        found = runner.apply(variables, batch, memory, traced=True)
        layers = {block: layer.only((*KEPT, GRAPH)) for block, layer in records(found.trace, config).items()}
        facts = {name: batch[name] for name in ("tokens", "targets", "label") if name in batch}
        chosen = jax.tree.map(
            lambda values: values[shown], (facts, real_tokens(found, batch, config), layers, found.kept)
        )
        likely = None if found.aux["head"] is None else _likely(found.aux["head"], shown)
        return (chosen, likely), found.memory

    skipped = SkippedRecords(run.config.data.max_skipped_share)
    batches = runner.each_batch(runner.compiled(look), run.variables, source, skipped=skipped, ahead=0)
    ((facts, real, layers, kept), likely), _ = jax.device_get(next(batches))
    view = TextView(
        run=run.name,
        label=f"{run.name}, step {run.step:,}" + (", routers look ahead" if config.allow_future else ""),
        layers=layer_views(layers, config.moe.num_experts),
        num_experts=config.moe.num_experts,
        expected=None if likely is None else Expected(kept["nats"], *likely),
        predictions=np.argmax(kept, axis=-1) if likely is None else None,
    )
    return ShownTexts(facts["tokens"], facts.get("targets"), facts.get("label"), real, view)


def _likely(head: HeadInputs, rows: Int[np.ndarray, " n"]) -> tuple[Int[Array, "n N M"], Float[Array, "n N M"]]:
    """The most probable next tokens and their probabilities, one row at a time: of all, the logits would be large."""

    def of_row(hidden: Float[Array, "N D"]) -> tuple[Array, Array]:
        kernel = head.kernel.astype(hidden.dtype)
        logits = jnp.dot(hidden, kernel, preferred_element_type=jnp.float32) + head.bias[None]
        largest, words = jax.lax.top_k(logits, min(_NUM_LIKELY, logits.shape[-1]))
        return words, jnp.exp(largest - jax.nn.logsumexp(logits, axis=-1, keepdims=True))

    return jax.lax.map(of_row, head.hidden[rows])
