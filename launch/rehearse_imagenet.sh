#!/usr/bin/env bash
# A rehearsal of everything that is done with ImageNet, on Fashion-MNIST in ImageNet's layout: check the data, train two
# routers, evaluate them on all suites, report. Both the training and the evaluation are killed on the way and started
# again, as will happen on real machines.
#
#   ./launch/rehearse_imagenet.sh [DIRECTORY]    # default runs/rehearsal; relative to the root of the repository
#
# Fashion-MNIST's four files are looked for in FASHION_MNIST (default: where Debian's dataset-fashion-mnist puts them).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

directory="${1:-runs/rehearsal}"
images="$directory/images"
python=.venv/bin/python

case "$directory" in
-* | *:/*)
    echo "rehearse_imagenet: expected a folder on this machine; received $directory" >&2
    exit 2
    ;;
esac
if [ $# -gt 1 ]; then
    echo "rehearse_imagenet: expected one folder; received $*" >&2
    exit 2
fi

./launch/install.sh
mkdir -p "$directory"
if [ ! -d "$images" ]; then
    rm -rf "$images.partial"
    "$python" -m vmoe_inform.evaluation.rehearsal --directory="$images.partial" \
        --source_directory="${FASHION_MNIST:-/usr/share/datasets/fashion-mnist}"
    mv "$images.partial" "$images"
fi

# The recipe with what ten classes of 32 px need: small layers, short training, weaker augmentation.
settings=(
    --config.model.num_classes=10
    --config.model.image_size_px=32
    --config.model.dtype=float32
    --config.model.head_bias_initial_value=-2.3
    --config.model.moe.expert_dropout_rate=0.0
    --config.data.source=folder
    --config.data.directory="$images"
    --config.data.test_split=val
    --config.data.suites_directory="$images/suites"
    --config.data.evaluation_crop=1.0
    --config.data.crop_min_area=0.5
    --config.data.randaugment_layers=1
    --config.data.randaugment_magnitude=3
    --config.data.num_workers=1
    --config.train.epochs=6
    --config.train.batch_size=128
    --config.train.log_every_steps=20
    --config.optimizer.learning_rate=2e-3
    --config.optimizer.warmup_steps=100
    --config.checkpoint.every_steps=100
    --config.evaluation.every_steps=None
    --config.evaluation.batch_size=256
)
recipe=configs/imagenet.py:recipe=vmoe300,variant=Ti/8
"$python" -m vmoe_inform.data.check --config="$recipe" "${settings[@]}" --directory="$directory"

# Runs a command, kills it once it has written this number of files, and reruns it.
killed_at() { # NUMBER FILES COMMAND...; FILES is a pattern
    local number="$1" files="$2"
    shift 2
    "$@" &
    local process=$!
    while kill -0 "$process" 2>/dev/null; do
        if [ "$(compgen -G "$files" | wc -l)" -ge "$number" ]; then
            kill -KILL "$process"
            echo "killed"
            break
        fi
        sleep 0.5
    done
    wait "$process" 2>/dev/null || true
    "$@"
}

for router in vmoe attention_vmoe; do
    workdir="$directory/$router"
    # After its second checkpoint
    killed_at 2 "$workdir/checkpoints/[1-9]*" \
        "$python" -m vmoe_inform.train --config="$recipe,router=$router" "${settings[@]}" --workdir="$workdir"
done
# In the middle of the 75 sets of corrupted images
killed_at 40 "$directory/attention_vmoe/evaluation/units/step_*/c/*/*.npz" \
    "$python" -m vmoe_inform.evaluate --workdir="$directory/attention_vmoe" --workdir="$directory/vmoe" \
    --suites=all
