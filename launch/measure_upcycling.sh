#!/usr/bin/env bash
# Sparse upcycling compared with training from scratch at equal compute, on Fashion-MNIST; docs/finetuning.md.
#
#   ./launch/measure_upcycling.sh [DIRECTORY] [SEEDS]    # default runs/upcycling and 3
#
# Fashion-MNIST's four files are looked for in FASHION_MNIST (default: where Debian's dataset-fashion-mnist puts them).
# The script continues where it was stopped.
#
# A dense model is trained for 4 epochs. Then, by the operations that vmoe_inform/nn/operations.py counts (an epoch of the
# dense model has 0.831 of those of the sparse one):
#   upcycled        2 epochs of the sparse model from the dense one
#   dense           2.406 more epochs of the dense model, which cost as much
#   scratch_extra   2 epochs of the sparse model from scratch: as much as what follows the dense training
#   scratch_total   5.325 epochs from scratch: as much as the dense training and what follows it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

directory="${1:-runs/upcycling}"
seeds="${2:-3}"
python=.venv/bin/python

case "$directory" in
-* | *:/* | *,*)
    echo "measure_upcycling: expected a folder on this machine, without a comma; received $directory" >&2
    exit 2
    ;;
esac
if [ $# -gt 2 ] || [[ ! "$seeds" =~ ^[1-9][0-9]*$ ]]; then
    echo "measure_upcycling: expected one folder and a number of seeds; received $*" >&2
    exit 2
fi

common=(
    --config.data.directory="${FASHION_MNIST:-/usr/share/datasets/fashion-mnist}"
    --config.evaluation.every_steps=None
    --config.train.log_every_steps=50
)
scratch=(
    --config.optimizer.warmup_steps=100
    --config.model.moe.capacity_factor=None
    --config.model.moe.capacity_factor_evaluation=None
)
train() { # NAME SEED CONFIG FLAGS...
    local workdir="$directory/$1/seed_$2" seed="$2" config="$3"
    shift 3
    "$python" -m vmoe_inform.train --config="$config" --workdir="$workdir" --config.seed="$seed" "${common[@]}" "$@"
}

for ((seed = 0; seed < seeds; seed++)); do
    dense="$directory/begin/seed_$seed"
    sparse=fashion_mnist:router=glam,where=every2
    train begin "$seed" fashion_mnist:where=none "${scratch[@]}" --config.train.epochs=4.0
    train upcycled "$seed" "upcycle:from=$dense"
    train dense "$seed" "upcycle:from=$dense,where=none" --config.train.epochs=2.406
    train scratch_extra "$seed" "$sparse" "${scratch[@]}" --config.train.epochs=2.0
    train scratch_total "$seed" "$sparse" "${scratch[@]}" --config.train.epochs=5.325
done

"$python" - "$directory" "$seeds" <<'END'
import json, pathlib, sys
import numpy as np
from scipy import stats

folder, seeds = pathlib.Path(sys.argv[1]), int(sys.argv[2])


def top1(name, seed):
    lines = map(json.loads, (folder / name / f"seed_{seed}" / "metrics.jsonl").open())
    return [100 * line["evaluation/clean/top1"] for line in lines if "evaluation/clean/top1" in line][-1]


names = ("begin", "upcycled", "dense", "scratch_extra", "scratch_total")
scores = {name: np.array([top1(name, seed) for seed in range(seeds)]) for name in names}
for name, found in scores.items():
    difference = scores["upcycled"] - found
    half = stats.t.ppf(0.975, seeds - 1) * difference.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else float("nan")
    print(f"{name:<14} top-1 {found.mean():6.2f} %   upcycled is better by {difference.mean():+6.2f} ± {half:.2f}")
END
