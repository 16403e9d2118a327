#!/usr/bin/env bash
# Many routers on Fashion-MNIST or WordNet, with the same settings and seeds: docs/studies.md and docs/language.md.
#
#   ./launch/study_routers.sh fashion_mnist|wordnet [DIRECTORY [FLAGS]]    # default runs/study_fashion_mnist or _wordnet
#
# The learning rate is chosen first, with the plain router alone, by records that are held out of the training split.
# The script continues where it was stopped. Environment:
#   SEEDS=5          runs of each router
#   JOBS=1           runs at a time, each a process; many small ones share a GPU with XLA_PYTHON_CLIENT_PREALLOCATE=false
#   FASHION_MNIST    folder of its four files (default: where Debian's dataset-fashion-mnist puts them)
#   RATES            learning rates to choose from, between spaces
#   PLAIN            the plain router, instead of the script's; it needs ROUTERS
#   ROUTERS          comma list to compare with the plain router, instead of the script's
#   PYTHON           default .venv/bin/python
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data="${1:-}"
directory="${2:-runs/study_$data}"
flags=("${@:3}") # of every study, instead of the script's where both have one, such as --config.train.epochs=1.0
seeds="${SEEDS:-5}"
jobs="${JOBS:-1}"
python="${PYTHON:-.venv/bin/python}"

if [ $# -lt 1 ] || [[ "$directory" == -* ]]; then
    echo "study_routers: expected fashion_mnist or wordnet, and a folder; received ${*:-nothing}" >&2
    exit 2
fi
if [[ ! "$seeds" =~ ^([2-9]|[1-9][0-9]+)$ ]] || [[ ! "$jobs" =~ ^[1-9][0-9]*$ ]]; then
    echo "study_routers: expected SEEDS of 2 or more and JOBS of 1 or more; received $seeds and $jobs" >&2
    exit 2
fi

case "$data" in
fashion_mnist)
    plain=vmoe
    config=fashion_mnist:where=last2
    suite=clean
    rates=(0.001 0.002 0.004)
    settings=(
        --config.data.directory="${FASHION_MNIST:-/usr/share/datasets/fashion-mnist}"
        --config.train.epochs=3.0
        --config.optimizer.warmup_steps=100
        --config.model.moe.capacity_factor=2.0
        --config.evaluation.batch_size=512
        --config.evaluation.corrupted_images=1000
    )
    routers=(
        vmoe@top_experts.renormalize=True # as all informed routers do
        similarity_vmoe@similarity.temperature=1
        similarity_vmoe@similarity.temperature=sqrt_dim
        similarity_vmoe@similarity.metric=cosine@similarity.temperature=0.1
        attention_vmoe@attention.sigma=1
        attention_vmoe@attention.sigma=estimated
        attention_vmoe@attention.sigma=sqrt_dim
        attention_vmoe@attention.sigma=estimated@attention.center=True
        attention_vmoe@attention.sigma=estimated@attention.heads=posterior
        symphony_vmoe@symphony.normalization=row
        symphony_vmoe@symphony.normalization=symmetric
        symphony_vmoe@symphony.identity_share=0.9@symphony.warmup_share=0.1
        similarity+symphony_vmoe@similarity.temperature=1
        attention+symphony_vmoe@attention.sigma=estimated
        expert_choice
        soft
        loss_free
        remoe
        simbal_smoe_top2
        adaptive_clusters_vmoe
        eigenbasis_vmoe
        vmoe@importance.over=batch@load.over=batch
        vmoe@moe.shared_experts=1
    )
    ;;
wordnet)
    plain=smoe_top2
    config=wordnet:size=small
    suite=perplexity
    rates=(0.0015 0.003 0.006)
    settings=(
        --steps_between=200
        --config.train.steps=1200
        --config.train.batch_size=8
        --config.model.hidden_size=64
        --config.model.mlp_size=64
        --config.model.num_heads=4
        --config.evaluation.swap_shares="(0.1,)"
    )
    routers=(
        similarity_smoe_top2@similarity.temperature=1
        similarity_smoe_top2@similarity.temperature=sqrt_dim
        similarity_smoe_top2@similarity.metric=cosine@similarity.temperature=0.1
        attention_smoe_top2@attention.sigma=1
        attention_smoe_top2@attention.sigma=estimated
        attention_smoe_top2@attention.sigma=sqrt_dim
        attention_smoe_top2@attention.sigma=estimated@attention.center=True
        attention_smoe_top2@attention.sigma=estimated@attention.heads=posterior
        symphony_smoe_top2@symphony.normalization=row
        symphony_smoe_top2@symphony.normalization=symmetric
        symphony_smoe_top2@symphony.identity_share=0.9@symphony.warmup_share=0.1
        similarity+symphony_smoe_top2@similarity.temperature=1
        attention+symphony_smoe_top2@attention.sigma=estimated
        loss_free
        remoe
        simbal_smoe_top2
        adaptive_clusters_smoe_top2
        eigenbasis_smoe_top2
        switch_smoe_top2
        switch_smoe_top2@switch.over=batch
        smoe_top2@moe.shared_experts=1
    )
    ;;
*)
    echo "study_routers: expected fashion_mnist or wordnet; received $data" >&2
    exit 2
    ;;
esac
kept=()
for setting in "${settings[@]}"; do
    [[ " ${flags[*]} " == *" ${setting%%=*}="* ]] || kept+=("$setting")
done
[ -z "${RATES:-}" ] || read -ra rates <<<"$RATES"
[ -z "${ROUTERS:-}" ] || IFS=, read -ra routers <<<"$ROUTERS"
if [ -n "${PLAIN:-}" ] && [ -z "${ROUTERS:-}" ]; then
    echo "study_routers: expected ROUTERS to compare with PLAIN; received none" >&2
    exit 2
fi
plain="${PLAIN:-$plain}"

study() { # ROUTERS SEEDS JOBS FOLDER FLAGS...
    local names="$1" of_each="$2" at_a_time="$3" workdir="$4"
    shift 4
    "$python" -m vmoe_inform.study --config="$config" --routers="$names" --seeds="$of_each" --jobs="$at_a_time" \
        --workdir="$workdir" "${kept[@]}" "${flags[@]}" "$@"
}

choose() { # RATE JOBS
    study "$plain" 2 "$2" "$directory/learning_rates/$1" --config.optimizer.learning_rate="$1" \
        --config.data.validation_share=0.1667 --config.evaluation.suites="('$suite',)"
}

if ((jobs >= 2 * ${#rates[@]})); then
    started=()
    for rate in "${rates[@]}"; do
        choose "$rate" 2 &
        started+=($!)
    done
    for process in "${started[@]}"; do
        wait "$process"
    done
else
    for rate in "${rates[@]}"; do
        choose "$rate" "$((jobs < 2 ? 1 : 2))"
    done
fi

rate="$("$python" - "$directory/learning_rates" "score/$suite" <<'END_OF_PYTHON'
import json, pathlib, sys

means = {}
for path in pathlib.Path(sys.argv[1]).glob("*/study.json"):
    (router,) = json.loads(path.read_text())["routers"].values()
    means[path.parent.name] = router["measures"][sys.argv[2]]["mean"]["mean"]
best = min if sys.argv[2] == "score/perplexity" else max
print(means, file=sys.stderr)
print(best(means, key=means.get))
END_OF_PYTHON
)"
echo "learning rate $rate"
study "$(IFS=,; echo "$plain,${routers[*]}")" "$seeds" "$jobs" "$directory" --config.optimizer.learning_rate="$rate"
