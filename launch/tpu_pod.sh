#!/usr/bin/env bash
# Trains on a Cloud TPU slice: makes the slice or takes the one of that name, puts this repository on all its workers,
# installs it, starts training on all of them, shows what worker 0 prints, and starts again after a preemption.
#
#   ./launch/tpu_pod.sh --name=NAME --zone=ZONE --type=v5litepod-16 --version=v2-alpha-tpuv5-lite \
#       --share=SERVER:/EXPORT [--project=PROJECT] [--spot] [--restarts=10] [--delete] [--dry-run] -- \
#       --config=configs/imagenet.py:router=attention_vmoe --workdir=/mnt/share/runs/attention \
#       --config.data.directory=/mnt/share/tfds
#   ./launch/tpu_pod.sh --name=NAME --zone=ZONE --stop [--dry-run]        # what is running saves and ends
#   ./launch/tpu_pod.sh --name=NAME --zone=ZONE --delete [--dry-run]      # deletes the slice and does nothing else
#
#   --share     NFS folder (Filestore) that is mounted on all workers as /mnt/share: the workdir has to lie there
#   --spot      a slice that is cheaper and may be taken away at any time
#   --restarts  how often training is started again after the slice was preempted, or a worker ended with
#               69, 75, 124, 134, 137 or 143
#   --delete    deletes the slice when training has ended, however it has
#   --dry-run   prints every command and runs none; the slice is taken for one that does not exist yet
#
# Training does not need this script's connection: the same command again finds it running and follows it.
# docs/launching.md says what it needs, what it costs and how to stop it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "tpu_pod: $*" >&2
    exit 2
}

name='' zone='' type='' version='' share='' project='' restarts=10
spot=false delete=false stop=false dry_run=false has_flags=false
while [ $# -gt 0 ]; do
    case "$1" in
    --name=?*) name="${1#*=}" ;;
    --zone=?*) zone="${1#*=}" ;;
    --type=?*) type="${1#*=}" ;;
    --version=?*) version="${1#*=}" ;;
    --share=?*) share="${1#*=}" ;;
    --project=?*) project="${1#*=}" ;;
    --restarts=?*) restarts="${1#*=}" ;;
    --spot) spot=true ;;
    --delete) delete=true ;;
    --stop) stop=true ;;
    --dry-run) dry_run=true ;;
    --)
        has_flags=true
        shift
        break
        ;;
    *) fail "expected one of the flags at the top of this script, then -- and those of vmoe_inform.train; received $1" ;;
    esac
    shift
done
if [ -z "$name" ] || [ -z "$zone" ]; then
    fail "expected --name and --zone"
fi
[[ "$restarts" =~ ^(0|[1-9][0-9]{0,8})$ ]] || fail "--restarts: expected an integer >= 0; received $restarts"
if $stop; then
    if $has_flags || $delete; then
        fail "--stop: expected neither -- nor --delete: it saves and ends what is running"
    fi
elif $has_flags; then
    if [ -z "$type" ] || [ -z "$version" ] || [ -z "$share" ]; then
        fail "expected --type, --version and --share"
    fi
elif ! $delete; then
    fail "expected -- and the flags of vmoe_inform.train, --stop or --delete"
fi
if ! $dry_run && ! command -v gcloud >/dev/null; then
    fail "expected the Google Cloud CLI (gcloud) on the path"
fi

where=(--zone="$zone")
if [ -n "$project" ]; then
    where+=(--project="$project")
fi

run() { # COMMAND...: prints it as it can be typed, and runs it
    local word
    printf '+'
    for word in "$@"; do
        if [[ "$word" =~ ^[A-Za-z0-9_./:=@%,+-]+$ ]]; then
            printf ' %s' "$word"
        else
            printf ' %s' "${word@Q}"
        fi
    done
    printf '\n'
    $dry_run || "$@"
}

tpu() { # VERB ARGUMENTS...
    run gcloud compute tpus tpu-vm "$1" "$name" "${where[@]}" "${@:2}"
}

on_workers() { # WHICH COMMAND
    tpu ssh --worker="$1" --command="$2"
}

state() { # READY, PREEMPTED, ...; nothing if there is no such slice
    if ! $dry_run; then
        gcloud compute tpus tpu-vm describe "$name" "${where[@]}" --format='value(state)' 2>/dev/null || true
    fi
}

delete_slice() {
    tpu delete --quiet
}

# A slice that was preempted stays as a name that cannot be used: it is deleted and made again.
have_slice() {
    case "$(state)" in
    READY) echo "tpu_pod: taking the slice $name" ;;
    '') make_slice ;;
    CREATING | STARTING | REPAIRING | RESTARTING) fail "$name is not ready yet; start this script again in a minute" ;;
    *)
        delete_slice
        make_slice
        ;;
    esac
}

make_slice() {
    local flags=(--accelerator-type="$type" --version="$version")
    if $spot; then
        flags+=(--spot)
    fi
    tpu create "${flags[@]}"
}

# What is committed, as an archive: what lies around on this machine stays here. The environment stays while the
# requirements do, and everything while training runs (launch/tpu_worker.sh).
install_everywhere() {
    local archive="${TMPDIR:-/tmp}/vmoe_inform-$name.tar.gz"
    run git archive --format=tar.gz --output="$archive" HEAD || return
    run gcloud compute tpus tpu-vm scp "$archive" "$name:vmoe_inform.tar.gz" "${where[@]}" --worker=all || return
    local mount='sudo apt-get install -y -qq nfs-common && sudo mkdir -p /mnt/share'
    mount+=" && sudo mount -t nfs ${share@Q} /mnt/share && sudo chmod a+rwx /mnt/share"
    on_workers all "mountpoint -q /mnt/share || { $mount; }" || return
    local running='[ -e train.lock ] && ! flock --nonblock train.lock true'
    local unpack='mkdir -p vmoe_inform && find vmoe_inform -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +'
    unpack+=' && tar -xzf vmoe_inform.tar.gz -C vmoe_inform && vmoe_inform/launch/tpu_worker.sh install'
    on_workers all "if $running; then echo training is running: nothing is installed; else $unpack; fi"
}

# Runs a command on all workers, again while the connection is lost (255) and the slice is there.
connected() { # COMMAND [COMMAND WHEN CONNECTED AGAIN]
    local code=0 lost
    for ((lost = 0; lost < 60; lost++)); do
        code=0
        on_workers all "$1" || code=$?
        if [ "$code" -ne 255 ] || [ "$(state)" != READY ]; then
            break
        fi
        echo "tpu_pod: lost the connection; training runs without it; connecting again" >&2
        sleep "${RECONNECT_SECONDS:-10}"
        set -- "${2:-$1}"
    done
    return "$code"
}

# Every worker writes train.log in its home folder; what worker 0 writes also comes here.
train() {
    local word words=''
    for word in "$@"; do
        words+=" ${word@Q}"
    done
    connected "vmoe_inform/launch/tpu_worker.sh start$words" || return
    connected 'vmoe_inform/launch/tpu_worker.sh follow' 'vmoe_inform/launch/tpu_worker.sh follow 5'
}

if $stop; then
    on_workers all 'vmoe_inform/launch/tpu_worker.sh stop'
    exit
fi
if ! $has_flags; then
    delete_slice
    exit
fi
code=0
for ((start = 0; start <= restarts; start++)); do
    if [ "$start" -gt 0 ]; then
        echo "tpu_pod: start $start of at most $restarts after the first"
    fi
    code=0
    have_slice
    { install_everywhere && train "$@"; } || code=$?
    case "$code" in
    0) break ;;
    69 | 75 | 124 | 134 | 137 | 143) ;; # stopped, or a worker has gone, is stuck or was killed: docs/reliability.md
    *) [ "$(state)" != READY ] || break ;; # any other end is one only if the slice is still there
    esac
done
if $delete; then
    delete_slice
fi
exit "$code"
