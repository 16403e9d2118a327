#!/usr/bin/env bash
# Trains on Cloud TPU slices, one or several, by a queued resource: requests the slices or takes those of that name,
# waits until they are there, puts this repository on all their workers, installs it, starts training on all of them,
# shows what worker 0 prints, and starts again after a preemption.
#
#   ./launch/tpu_queue.sh --name=NAME --zone=ZONE --type=v5litepod-16 --version=v2-alpha-tpuv5-lite [--slices=2] \
#       --share=SERVER:/EXPORT [--project=PROJECT] [--spot|--reserved] [--restarts=10] [--delete] [--dry-run] -- \
#       --config=configs/imagenet.py:router=attention_vmoe --workdir=/mnt/share/runs/attention \
#       --config.data.directory=/mnt/share/tfds
#   ./launch/tpu_queue.sh --name=NAME --zone=ZONE --stop [--dry-run]        # what is running saves and ends
#   ./launch/tpu_queue.sh --name=NAME --zone=ZONE --delete [--dry-run]      # deletes request and slices, no more
#
#   --slices    slices of this type, connected by the data centre's network; they come all or none
#   --share     NFS folder (Filestore) that is mounted on all workers as /mnt/share: the workdir has to lie there, or in a
#               bucket (--workdir=gs://BUCKET/NAME), which needs no share
#   --spot      slices that are cheaper and may be taken away at any time
#   --reserved  slices of a reservation
#   --restarts  how often training is started again after slices were preempted, or a worker ended with
#               69, 75, 124, 134, 137 or 143
#   --delete    deletes request and slices when training has ended, however it has
#   --dry-run   prints every command and runs none; the slices are taken for ones that do not exist yet
#
# Neither the request nor training needs this script's connection: the same command again finds them and follows them.
# docs/launching.md says what it needs, what it costs and how to stop it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/tpu_run.sh
. launch/tpu_run.sh
group=queued-resources ready=ACTIVE every_node=(--node=all)

state() {
    local said
    if $dry_run; then
        return
    elif said="$(gcloud compute tpus "$group" describe "$name" "${where[@]}" --format='value(state.state)' 2>&1)"; then
        echo "$said"
    elif [[ "$said" != *NOT_FOUND* ]]; then
        echo "$script: $said" >&2
        echo UNKNOWN
    fi
}

# A request that was preempted stays as a name that cannot be used: it is deleted and made again.
have_slices() {
    local now before='' unknown=0
    while true; do
        now="$(state)"
        case "$now" in
        "$ready")
            echo "$script: taking the slices of $name"
            return
            ;;
        '')
            request
            if $dry_run; then
                return
            fi
            ;;
        SUSPENDED) delete_slices ;;
        FAILED) fail "the request $name failed; gcloud compute tpus queued-resources describe $name says why" ;;
        UNKNOWN) [ $((unknown += 1)) -lt 20 ] || fail "expected an answer about $name; received none 20 times" ;;
        *) [ "$now" = "$before" ] || echo "$script: $name is $now; this script may be ended and started again" ;;
        esac
        before="$now"
        sleep "${POLL_SECONDS:-30}"
    done
}

request() {
    local flags=(--accelerator-type="$type" --runtime-version="$version") kind
    kind="$(capacity)"
    if [ "$slices" -eq 1 ]; then
        flags+=(--node-id="$name")
    else
        flags+=(--node-count="$slices" --node-prefix="$name")
    fi
    tpu create "${flags[@]}" ${kind:+"$kind"}
}

delete_slices() {
    tpu delete --force --quiet
}

read_flags "$@"
main
