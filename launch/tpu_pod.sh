#!/usr/bin/env bash
# The older road to one Cloud TPU slice, without a queue: where there is no capacity, making the slice fails.
# launch/tpu_queue.sh waits for capacity, and has several slices. Else they do the same, with the same flags.
#
#   ./launch/tpu_pod.sh --name=NAME --zone=ZONE --type=v5litepod-16 --version=v2-alpha-tpuv5-lite \
#       --share=SERVER:/EXPORT [--project=PROJECT] [--spot|--reserved] [--restarts=10] [--delete] [--dry-run] -- \
#       --config=configs/imagenet.py:router=attention_vmoe --workdir=/mnt/share/runs/attention \
#       --config.data.directory=/mnt/share/tfds
#   ./launch/tpu_pod.sh --name=NAME --zone=ZONE --stop [--dry-run]        # what is running saves and ends
#   ./launch/tpu_pod.sh --name=NAME --zone=ZONE --delete [--dry-run]      # deletes the slice and does nothing else
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/tpu_run.sh
. launch/tpu_run.sh

state() { # READY, PREEMPTED, ...
    if ! $dry_run; then
        gcloud compute tpus "$group" describe "$name" "${where[@]}" --format='value(state)' 2>/dev/null || true
    fi
}

# A slice that was preempted stays as a name that cannot be used: it is deleted and made again.
have_slices() {
    case "$(state)" in
    "$ready") echo "$script: taking the slice $name" ;;
    '') make_slice ;;
    CREATING | STARTING | REPAIRING | RESTARTING) fail "$name is not ready yet; start this script again in a minute" ;;
    *)
        delete_slices
        make_slice
        ;;
    esac
}

make_slice() {
    local kind
    kind="$(capacity)"
    tpu create --accelerator-type="$type" --version="$version" ${kind:+"$kind"}
}

delete_slices() {
    tpu delete --quiet
}

read_flags "$@"
if [ "$slices" -ne 1 ]; then
    fail "--slices: expected launch/tpu_queue.sh for several slices; received $slices"
fi
main
