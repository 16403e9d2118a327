"""Compares this library with a recorded run of the original V-MoE.

    python -m vmoe_inform.interop.check_golden FILE.npz [FILE.npz ...]

Each file holds ``config.json`` (settings by the original's names), ``param/PATH``, ``images`` and ``cotangent``. It
also holds the results of the original:

- ``logits``;
- ``loss`` = sum(logits * cotangent) + sum over groups of all blocks' auxiliary losses;
- ``metric/NAME``, one value per group;
- ``grad/PATH``.

Errors are relative to the array's largest entry. The exit code is 0 if all are at most 1e-4, 1 if one is larger, and 2
on bad input.

The softmax of the attention ignores the bias of the keys. Its gradient is zero, and either program finds rounding
there. A gradient below 1e-6 of the file's largest gradient in *both* programs counts as zero. Its error is relative to
that largest gradient.
"""

import json
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks, text
from vmoe_inform.axes import Array, Tree
from vmoe_inform.interop import vmoe
from vmoe_inform.interop.comparison import TOLERANCE, relative_error
from vmoe_inform.nn import models
from vmoe_inform.nn.auxiliary_losses import loss_weights

ROUNDING = 1e-6


def errors_of(ours: Mapping[str, Array], theirs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Relative error of every recorded array by name; see the head of this file for gradients that are zero."""
    gradients = [np.max(np.abs(array)) for name, array in theirs.items() if name.startswith("grad/") and array.size]
    largest = float(max(gradients, default=0.0))
    errors = {}
    for name, recorded in theirs.items():
        error = relative_error(ours[name], recorded)
        if name.startswith("grad/") and recorded.size and largest > 0:
            both = np.maximum(np.max(np.abs(np.asarray(ours[name]))), np.max(np.abs(recorded)))
            if both <= ROUNDING * largest:
                error = float(np.max(np.abs(np.asarray(ours[name]) - recorded)) / largest)
        errors[name] = error
    return errors


def compute(arrays: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """This library's results for a file's inputs, under the file's names.

    Args:
      arrays: the contents of a file.

    Returns:
      ``logits``, ``loss``, ``metric/...`` and ``grad/...``.

    Raises:
      ValueError: a missing entry, or settings and parameters that do not fit together.
    """
    for name in ("config.json", "images", "cotangent"):
        if name not in arrays:
            raise checks.error("golden file", f"an entry {name!r}", sorted(arrays)[:5])
    settings = json.loads(str(arrays["config.json"]))
    model = models.from_config(vmoe.model_config(settings))
    theirs = {name.removeprefix("param/"): array for name, array in arrays.items() if name.startswith("param/")}
    shapes = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))["params"]
    params = vmoe.from_original(theirs, shapes)

    def loss_function(params: Tree) -> tuple[Array, tuple[Array, dict[str, Array]]]:
        logits, aux = model.apply({"params": params}, arrays["images"], train=False)
        metrics = _metrics(aux["moe"], loss_weights(model.config.router))
        loss = jnp.sum(logits * arrays["cotangent"])
        if metrics:
            loss += jnp.sum(metrics["auxiliary_loss"])
        return loss, (logits, metrics)

    with jax.default_matmul_precision("highest"):
        gradient_function = jax.jit(jax.value_and_grad(loss_function, has_aux=True))
        (loss, (logits, metrics)), gradients = gradient_function(params)
    flat = flax.traverse_util.flatten_dict(gradients, sep="/")
    result = {"logits": logits, "loss": loss}
    result |= {f"metric/{name}": value for name, value in metrics.items()}
    return result | {f"grad/{path}": flat[vmoe.our_name(path)] for path in theirs}


def _metrics(layers: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Array]:
    """Auxiliary metrics per group under the original's names."""
    metrics: dict[str, Array] = {}
    totals = []
    for block, layer in layers.items():
        name = block.replace("block_", "encoderblock_")
        losses = layer["losses"]
        metrics |= {f"{name}/{loss}_loss": losses[loss] for loss in losses}
        total = sum(weights.get(loss, 0.0) * losses[loss] for loss in losses)
        metrics[f"{name}/auxiliary_loss"] = total
        totals.append(total)
    return metrics | {"auxiliary_loss": sum(totals[1:], totals[0])} if totals else metrics


def check(path: str) -> float:
    """Prints the errors of one file and returns the largest.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a file of this format.
    """
    path = checks.conform("golden file", path, checks.GivenPath)
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"golden file: expected an .npz file; received {path!r}")
    try:
        with zipfile.ZipFile(path):  # numpy would also read a lone array, and a truncated file as a pickle
            pass
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as problem:
        raise checks.InputError(
            f"golden file: expected an .npz file of arrays; received {path!r} ({problem})"
        ) from None
    ours = compute(arrays)
    recorded = [n for n in arrays if n in ("logits", "loss") or n.startswith(("metric/", "grad/"))]
    missing = {"logits", "loss"} - set(recorded) or {n for n in recorded if n not in ours}
    if missing:
        raise checks.error("golden file", "recorded logits, loss, metrics and gradients of this model", sorted(missing))
    errors = errors_of(ours, {name: arrays[name] for name in recorded})
    print(
        f"{text.printable(path)}\n  largest error relative to the largest entry of the array (tolerance {TOLERANCE:g})"
    )
    for name, value in errors.items():
        print(f"  {value:10.2e}  {text.printable(name)}{'' if value <= TOLERANCE else '   <-- too large'}")
    kinds = {
        "logits": ["logits"],
        "loss": ["loss"],
        "metrics": [n for n in errors if n.startswith("metric/")],
        "gradients": [n for n in errors if n.startswith("grad/")],
    }
    summary = ", ".join(f"{kind} {max(errors[n] for n in names):.1e}" for kind, names in kinds.items() if names)
    print(f"  largest: {summary}")
    return max(errors.values())


def main(arguments: Sequence[str]) -> int:
    """Checks every file; returns the exit code."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        largest = max(check(path) for path in arguments)
    except (ValueError, FileNotFoundError) as problem:
        print(text.printable(f"error: {problem}"), file=sys.stderr)
        return 2
    print("agrees" if largest <= TOLERANCE else "DOES NOT AGREE")
    return 0 if largest <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
