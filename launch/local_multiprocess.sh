#!/usr/bin/env bash
# Several processes on this machine that train one run together, as the hosts of a pod do: each has CPU
# devices of its own and reads its own share of the data.
#
#   ./launch/local_multiprocess.sh NUM_PROCESSES DEVICES_PER_PROCESS -- --config=configs/digits.py --workdir=runs/two
#   MODULE=vmoe_inform.evaluate ./launch/local_multiprocess.sh 2 2 -- --workdir=runs/two
#   ./launch/local_multiprocess.sh 4 gpu -- --config=configs/imagenet.py --workdir=runs/four
#
# With "gpu", each process has one GPU of this machine instead, of those that CUDA_VISIBLE_DEVICES lets this script see.
# Every line of output has the number of its process in front. When one process fails, the others are ended, and its
# exit code is that of this script. SIGTERM, SIGINT and SIGHUP go to all processes: they save and end with 75.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    echo "local_multiprocess: expected NUM_PROCESSES DEVICES_PER_PROCESS -- FLAGS, or gpu for the devices; received: $*" >&2
    exit 2
}
if [ $# -lt 3 ] || ! [[ "$1" =~ ^[1-9][0-9]{0,3}$ && "$2" =~ ^([1-9][0-9]{0,3}|gpu)$ && "$3" = "--" ]]; then
    usage "$@"
fi
num_processes="$1"
devices="$2"
shift 3
module="${MODULE:-vmoe_inform.train}"
seconds_to_end="${SECONDS_TO_END:-30}" # that the others get after one has failed, before they are killed
if ! [[ "$seconds_to_end" =~ ^(0|[1-9][0-9]{0,8})$ ]]; then
    echo "local_multiprocess: SECONDS_TO_END: expected an integer >= 0; received $seconds_to_end" >&2
    exit 2
fi
python="${PYTHON:-.venv/bin/python}"
if ! command -v "$python" >/dev/null; then
    echo "local_multiprocess: expected $python (./launch/install.sh makes .venv; PYTHON names another)" >&2
    exit 2
fi

port="$("$python" -c 'import socket; s = socket.create_server(("", 0)); print(s.getsockname()[1])')"
export PYTHONUNBUFFERED=1
gpus=()
if [ "$devices" = gpu ]; then
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
    else
        mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null || true)
    fi
    if [ "${#gpus[@]}" -lt "$num_processes" ]; then
        echo "local_multiprocess: expected a GPU for each of $num_processes processes; received ${#gpus[@]} visible ones" \
            "(CUDA_VISIBLE_DEVICES is ${CUDA_VISIBLE_DEVICES-not set})" >&2
        exit 2
    fi
    export JAX_PLATFORMS=cuda,cpu # a GPU that cannot be used is an error
else
    export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="$devices" JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo
fi

# A process group for each process: Ctrl-C reaches this script alone, which passes it on once. A second SIGINT would
# interrupt a process that saves.
set -m
processes=()
end_all() { # SIGNAL
    local process
    for process in "${processes[@]}"; do
        kill -s "$1" "$process" 2>/dev/null || true
    done
}
trap 'end_all TERM' TERM HUP
trap 'end_all INT' INT
trap 'end_all KILL' EXIT # what is left if this script itself fails

mark() { # NUMBER: its lines, until it has closed its output
    trap '' INT TERM HUP
    exec sed -u "s/^/[$1] /"
}
for ((number = 0; number < num_processes; number++)); do
    if [ "$devices" = gpu ]; then
        export CUDA_VISIBLE_DEVICES="${gpus[number]}"
    fi
    "$python" -m "$module" "$@" --coordinator_address="127.0.0.1:$port" \
        --num_processes="$num_processes" --process_id="$number" \
        > >(mark "$number") 2> >(mark "$number" >&2) &
    processes+=($!)
done

# Looks at each process in turn: `wait -n` can miss one of two that end together.
code=0
kill_at=
while [ "${#processes[@]}" -gt 0 ]; do
    sleep 0.1 || true # a signal to all processes of the terminal ends it
    running=()
    for process in "${processes[@]}"; do
        if kill -0 "$process" 2>/dev/null; then
            running+=("$process")
            continue
        fi
        ended=0
        wait "$process" 2>/dev/null || ended=$?
        if [ "$code" -eq 0 ] && [ "$ended" -ne 0 ]; then
            code="$ended"
            kill_at=$((SECONDS + seconds_to_end))
            [ "$ended" -eq 75 ] || end_all TERM # after 75 the others stop by themselves, in the same step
        fi
    done
    processes=("${running[@]}")
    if [ -n "$kill_at" ] && [ "$SECONDS" -gt "$kill_at" ]; then
        end_all KILL
    fi
done
exit "$code"
