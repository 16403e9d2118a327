#!/usr/bin/env bash
# What launch/tpu_queue.sh and tpu_pod.sh do on each worker. Training runs apart from the connection that started it, at most once at a
# time: a lost connection ends nothing, and starts nothing twice.
#
#   launch/tpu_worker.sh install            # .venv, unless it is what requirements.txt says
#   launch/tpu_worker.sh start FLAGS        # of vmoe_inform.train; does nothing if that is running
#   launch/tpu_worker.sh follow [LINES]     # waits for its end and returns its exit code; the first worker of the
#                                           # first slice shows its output
#   launch/tpu_worker.sh stop               # SIGTERM: it saves and ends, and follow returns 130
#
# In the home folder: train.log of all starts, and train.lock, .pid, .command, .begin, .stop and .exit of the newest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

install() {
    ./launch/install.sh
    if ! cmp -s .venv/installed .venv/installed_extras; then
        .venv/bin/python -m pip install -q -e '.[tpu,gcs]'
        cp .venv/installed .venv/installed_extras
    fi
}

start() { # FLAGS
    exec 9>>"$HOME/train.lock"
    if ! flock --nonblock 9; then # training holds it as long as it runs
        if [ "$*" != "$(cat "$HOME/train.command")" ]; then
            echo "tpu_worker: expected no other training here; running with: $(cat "$HOME/train.command")" >&2
            exit 2
        fi
        echo "tpu_worker: training is running already"
        return
    fi
    rm -f "$HOME/train.exit" "$HOME/train.stop" "$HOME/train.pid" # a pid of before may be another program's by now
    echo "$*" >"$HOME/train.command"
    touch "$HOME/train.log"
    stat --format=%s "$HOME/train.log" >"$HOME/train.begin"
    setsid launch/tpu_worker.sh run "$@" >>"$HOME/train.log" 2>&1 </dev/null &
}

run() { # FLAGS; by start, with its lock
    .venv/bin/python -m vmoe_inform.train "$@" &
    echo $! >"$HOME/train.pid"
    local code=0
    wait $! || code=$?
    echo "$code" >"$HOME/train.exit"
}

attribute() { # NAME; of this machine's metadata
    curl -sfH Metadata-Flavor:Google "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1" || true
}

follow() { # LINES before those that come; without, all of this start
    local number slice code from="--bytes=+$(($(cat "$HOME/train.begin") + 1))"
    number="$(attribute agent-worker-number)"
    slice="$(attribute tpu-env | sed -n "s/^MEGASCALE_SLICE_ID: *'*\([0-9]*\)'*.*/\1/p")"
    if [ $# -gt 0 ]; then
        from="--lines=$1"
    fi
    if [ "$number" = 0 ] && [ "${slice:-0}" = 0 ]; then
        tail "$from" --follow --sleep-interval=0.2 --pid=$$ "$HOME/train.log" &
        trap 'kill "$!"' EXIT
    fi
    flock --shared "$HOME/train.lock" true
    code="$(cat "$HOME/train.exit" 2>/dev/null || echo 137)" # none: what writes it was killed
    if [ -e "$HOME/train.stop" ]; then
        code=130
    fi
    sleep 1 # the last lines
    exit "$code"
}

stop() {
    if ! flock --nonblock "$HOME/train.lock" true; then
        touch "$HOME/train.stop"
        kill -TERM "$(cat "$HOME/train.pid")"
    fi
}

case "${1:-}" in
install | start | run | follow | stop) "$@" ;;
*)
    echo "tpu_worker: expected install, start, follow or stop; received ${1:-nothing}" >&2
    exit 2
    ;;
esac
