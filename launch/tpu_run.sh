# Trains on the workers of TPU VMs: what launch/tpu_queue.sh and launch/tpu_pod.sh have in common. It is read by them,
# and does nothing by itself. They say how slices are had:
#
#   group, ready           commands of gcloud compute tpus, and the state in which its slices can be used
#   every_node             flags by which ssh and scp reach all slices
#   state                  prints the state; nothing where there are no slices, UNKNOWN where nobody answers
#   have_slices            makes them, or takes those of the name; returns when they can be used
#   delete_slices          deletes them
#
# shellcheck shell=bash
script="$(basename "$0" .sh)"
group=tpu-vm ready=READY every_node=()
name='' zone='' type='' version='' share='' project='' restarts=10 slices=1
spot=false reserved=false delete=false stop=false dry_run=false has_flags=false
where=() train_flags=()

fail() {
    echo "$script: $*" >&2
    exit 2
}

read_flags() { # "$@" of the script
    while [ $# -gt 0 ]; do
        case "$1" in
        --name=?*) name="${1#*=}" ;;
        --zone=?*) zone="${1#*=}" ;;
        --type=?*) type="${1#*=}" ;;
        --version=?*) version="${1#*=}" ;;
        --share=?*) share="${1#*=}" ;;
        --project=?*) project="${1#*=}" ;;
        --restarts=?*) restarts="${1#*=}" ;;
        --slices=?*) slices="${1#*=}" ;;
        --spot) spot=true ;;
        --reserved) reserved=true ;;
        --delete) delete=true ;;
        --stop) stop=true ;;
        --dry-run) dry_run=true ;;
        --)
            has_flags=true
            shift
            train_flags=("$@")
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
    [[ "$slices" =~ ^[1-9][0-9]{0,2}$ ]] || fail "--slices: expected an integer from 1 to 999; received $slices"
    if $spot && $reserved; then
        fail "expected one of --spot and --reserved"
    fi
    if $stop; then
        if $has_flags || $delete; then
            fail "--stop: expected neither -- nor --delete: it saves and ends what is running"
        fi
    elif $has_flags; then
        if [ -z "$type" ] || [ -z "$version" ]; then
            fail "expected --type and --version"
        fi
        if [ -z "$share" ] && [[ " ${train_flags[*]}" != *' --workdir=gs://'* ]]; then
            fail "expected --share, or --workdir=gs://BUCKET/NAME"
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
}

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
    run gcloud compute tpus "$group" "$1" "$name" "${where[@]}" "${@:2}"
}

on_workers() { # COMMAND
    tpu ssh "${every_node[@]}" --worker=all --command="$1"
}

# Which kind of capacity the slices are of, as flags of gcloud.
capacity() {
    if $spot; then
        echo --spot
    elif $reserved; then
        echo --reserved
    fi
}

# What is committed, as an archive: what lies around on this machine stays here. The environment stays while the
# requirements do, and everything while training runs (launch/tpu_worker.sh).
install_everywhere() {
    local archive="${TMPDIR:-/tmp}/vmoe_inform.XXXXXX" code=0
    if ! $dry_run; then
        archive="$(mktemp "$archive")" || return
    fi
    run git archive --format=tar.gz --output="$archive" HEAD &&
        run gcloud compute tpus "$group" scp "$archive" "$name:vmoe_inform.tar.gz" "${where[@]}" "${every_node[@]}" \
            --worker=all || code=$?
    $dry_run || rm -f "$archive"
    [ "$code" -eq 0 ] || return "$code"
    local mount='sudo apt-get install -y -qq nfs-common && sudo mkdir -p /mnt/share'
    mount+=" && sudo mount -t nfs ${share@Q} /mnt/share && sudo chmod a+rwx /mnt/share"
    if [ -n "$share" ]; then
        on_workers "mountpoint -q /mnt/share || { $mount; }" || return
    fi
    local running='[ -e train.lock ] && ! flock --nonblock train.lock true'
    local unpack='mkdir -p vmoe_inform && find vmoe_inform -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +'
    unpack+=' && tar -xzf vmoe_inform.tar.gz -C vmoe_inform && vmoe_inform/launch/tpu_worker.sh install'
    on_workers "if $running; then echo training is running: nothing is installed; else $unpack; fi"
}

is_there() {
    [[ "$(state)" =~ ^($ready|UNKNOWN)$ ]]
}

# Runs a command on all workers, again while the connection is lost (255) and the slices are there.
connected() { # COMMAND [COMMAND WHEN CONNECTED AGAIN]
    local code=0 lost
    for ((lost = 0; lost < 60; lost++)); do
        code=0
        on_workers "$1" || code=$?
        if [ "$code" -ne 255 ] || ! is_there; then
            break
        fi
        echo "$script: lost the connection; training runs without it; connecting again" >&2
        sleep "${RECONNECT_SECONDS:-10}"
        set -- "${2:-$1}"
    done
    return "$code"
}

# Every worker writes train.log in its home folder; what worker 0 of the first slice writes also comes here.
train() {
    local word words=''
    for word in "${train_flags[@]}"; do
        words+=" ${word@Q}"
    done
    connected "vmoe_inform/launch/tpu_worker.sh start$words" || return
    connected 'vmoe_inform/launch/tpu_worker.sh follow' 'vmoe_inform/launch/tpu_worker.sh follow 5'
}

# Does what the flags ask for, and ends the script.
main() {
    if $stop; then
        on_workers 'vmoe_inform/launch/tpu_worker.sh stop'
        exit
    fi
    if ! $has_flags; then
        delete_slices
        exit
    fi
    local code=0 start
    for ((start = 0; start <= restarts; start++)); do
        if [ "$start" -gt 0 ]; then
            echo "$script: start $start of at most $restarts after the first"
        fi
        code=0
        have_slices
        { install_everywhere && train; } || code=$?
        case "$code" in
        0) break ;;
        69 | 75 | 124 | 134 | 137 | 143) ;; # stopped, or a worker has gone, is stuck or was killed: docs/reliability.md
        *) ! is_there || break ;; # any other end is one only if the slices are still there
        esac
    done
    if $delete; then
        delete_slices
    fi
    exit "$code"
}
