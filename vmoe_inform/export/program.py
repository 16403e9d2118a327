"""A model's evaluation as one StableHLO program, for any batch size and for several platforms."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax import export

from vmoe_inform import tasks
from vmoe_inform.axes import Array
from vmoe_inform.interop.exported import flatten, unflatten
from vmoe_inform.nn import models
from vmoe_inform.runs.run import Run

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_MEMORY = "memory/"


def build(run: Run, platforms: Sequence[str] = PLATFORMS) -> export.Exported:
    """The program of :func:`jax.export.export`, of two dictionaries to one.

    The first argument has the arrays by the names of :func:`vmoe_inform.interop.exported.flatten`. The second has what
    the task's batches have, B examples of each: ``image`` uint8 [B, P, P, 3], or ``tokens`` int32 [B, N]. Classifiers
    of text also take ``token_mask`` bool [B, N], False for padding. The result has ``logits``. Normalisation is part of
    the program.

    Where sequences of a group share the experts' slots, B is a multiple of their number. Then ``mask`` bool [B] is
    False for those that only fill up a group. Language models that look back beyond a sequence also take and return
    ``memory/BLOCK`` [B, tokens, D]: zeros first, then what the sequence before returned.

    Args:
      run: the model, on any devices.
      platforms: that the program can run on, of :data:`PLATFORMS`.
    """
    config = dataclasses.replace(
        run.config.model,
        # Which other ways are fastest, or there at all, depends on the platform and the batch
        moe=dataclasses.replace(run.config.model.moe, dispatch="gather"),
        attention="xla",
        remat="none",
    )
    model, task = models.from_config(config), tasks.from_config(run.config)
    group = config.moe.group_size_sequences
    batch: Any  # a size that is no number
    (batch,) = export.symbolic_shape("batch" if group == 1 else f"{group}*groups")
    asked = (task.input_field, "token_mask", *([] if group == 1 else ["mask"]))
    inputs = {name: shape for name, shape in task.evaluation_shapes(batch).items() if name in asked}
    memory = (jax.eval_shape(lambda: model.initial_memory(group)) or {}) if task.carries_memory else {}
    inputs |= {
        f"{_MEMORY}{block}": jax.ShapeDtypeStruct((batch, *shape.shape[1:]), shape.dtype)
        for block, shape in memory.items()
    }

    def program(arrays: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]:
        memory = {name.removeprefix(_MEMORY): value for name, value in inputs.items() if name.startswith(_MEMORY)}
        prepared: dict[str, Any] = task.prepare(None, {name: inputs[name] for name in inputs if name in asked})
        logits, aux = model.apply(
            unflatten(arrays),
            prepared["inputs"],
            train=False,
            sequence_mask=task.mask(prepared),
            token_mask=task.token_mask(prepared),
            memory=memory or None,
        )
        kept = aux["memory"] if memory else {}
        return {"logits": logits, **{f"{_MEMORY}{block}": value for block, value in kept.items()}}

    arrays = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in flatten(run.variables).items()}
    return export.export(jax.jit(program), platforms=tuple(platforms))(arrays, inputs)
