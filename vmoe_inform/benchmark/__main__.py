"""Measures what the package costs, as ratios to references of the same run.

    python -m vmoe_inform.benchmark layer [--experts=8,32,128] [--groups=1,8,32] [--dispatch=NAMES]
    python -m vmoe_inform.benchmark step [--config=FILE:ARGUMENT] [--dispatch=NAMES] [--against=dense]
    python -m vmoe_inform.benchmark inform [--steps=NAMES] [--tokens=50,197,577,1025,4097]
    python -m vmoe_inform.benchmark inform --config=FILE:ARGUMENT [--steps=NAMES] [--tokens=512]
    python -m vmoe_inform.benchmark peers [--config=FILE:ARGUMENT] [--peers=FILE.py,...]
    python -m vmoe_inform.benchmark experts --topology=v5e:2x2 [--experts=8,32,128] [--expert_dropout=0,0.2]
    python -m vmoe_inform.benchmark input [--config=FILE:ARGUMENT]
    python -m vmoe_inform.benchmark evaluate [--config=FILE:ARGUMENT]
    python -m vmoe_inform.benchmark start [--config=FILE:ARGUMENT] [--before=CHECKOUT]
    python -m vmoe_inform.benchmark input --against=tf.data [--image_size_px=224] [--photographs=DIR]

- layer: a MoE layer over a dense MLP that does the same activated work.
- step: time of the train step, of images or text, over that with another dispatcher. With --against=dense: over that of
  a model without MoE that does the same activated work. Useful operations per second over those of a plain product.
- inform: a model with each inform step over the same model without it; with --config that of a recipe, as it evaluates.
- peers: images per second of training and evaluation, over those of programs of others.
- experts: cycles of the experts' MLPs by a kernel and by single products, as a TPU's compiler schedules them.
- input: rate of the input pipeline over the rate at which the step consumes. With --against=tf.data: training images
  made of JPEGs per core second, over those of tf.data (extra ``prepare``).
- evaluate: images a second of evaluation, of the host and of the devices alone; copied bytes and milliseconds besides
  decoding of an image.
- start: processor time of a run from the start of its process to its end. Compiled programs are kept, found, or off.
  With --before it takes turns with another checkout.

Both sides of a comparison take turns in one process. The tables show medians with their quartiles; --json=FILE writes
all of it. With --topology=v5e:2x2, layer, step, inform and experts compile for one chip of that TPU, which need not be
there (extra ``tpu``). Then cycles are compared instead of times: estimated ones, and those of its final schedules.
"""

import json
import sys
import time

from absl import flags

from vmoe_inform import command_line, storage
from vmoe_inform.benchmark import evaluate, experts, inform, layer, peers, shared, start, step
from vmoe_inform.benchmark import input as input_benchmark

for _module in (shared, layer, step, inform, experts, peers, input_benchmark, evaluate, start):
    flags.adopt_module_key_flags(_module)  # --help shows them
_JSON = command_line.define_output("json", "File for the rows, with machine and settings.")

BENCHMARKS = {
    "layer": layer.BENCHMARK,
    "step": step.BENCHMARK,
    "inform": inform.BENCHMARK,
    "peers": peers.BENCHMARK,
    "experts": experts.BENCHMARK,
    "input": input_benchmark.BENCHMARK,
    "evaluate": evaluate.BENCHMARK,
    "start": start.BENCHMARK,
}


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    from vmoe_inform.performance import tables

    subcommand = arguments[1]
    shared.check_flags(subcommand, BENCHMARKS)
    file = _JSON()
    begin = time.perf_counter()
    settings, measured = BENCHMARKS[subcommand].measure()
    rows = []
    for row in measured:
        rows.append(row)
        print(f"\r{len(rows)} rows after {time.perf_counter() - begin:.0f} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(tables.render(rows))
    if file is not None:
        document = {"header": shared.header(subcommand, settings), "rows": [tables.flatten(row) for row in rows]}
        storage.write_text(file, json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    command_line.run(main, subcommands=tuple(BENCHMARKS))
