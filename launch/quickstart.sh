#!/usr/bin/env bash
# Trains a plain and an attention-informed V-MoE on the embedded digits, with the same seeds and data order, and
# compares them on the mini suites. What an earlier start has finished is not done again.
#
#   ./launch/quickstart.sh [DIRECTORY]       # default runs/quickstart; relative to the root of the repository
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

directory="${1:-${QUICKSTART_DIR:-runs/quickstart}}"
suites=clean,c,r,a,o

case "$directory" in
-* | *:/*)
    echo "quickstart: expected a folder on this machine; received $directory" >&2
    exit 2
    ;;
esac
if [ $# -gt 1 ]; then
    echo "quickstart: expected one folder; received $*" >&2
    exit 2
fi

./launch/install.sh
# Side by side: a model this small leaves half of two cores idle. The informed run shows its progress, the plain one
# keeps what it prints for the case that it fails.
mkdir -p "$directory"
train() {
    .venv/bin/python -m vmoe_inform.train --config="configs/digits.py:router=$1" --workdir="$directory/$1"
}
train vmoe >"$directory/vmoe.log" 2>&1 &
plain=$!
trap 'kill "$plain" 2>/dev/null || true' EXIT
train attention_vmoe
if ! wait "$plain"; then
    cat "$directory/vmoe.log" >&2
    exit 1
fi
tail -n 1 "$directory/vmoe.log"
.venv/bin/python -m vmoe_inform.evaluate --workdir="$directory/vmoe" --suites="$suites" --noreport
.venv/bin/python -m vmoe_inform.evaluate --workdir="$directory/attention_vmoe" --compare="$directory/vmoe" \
    --suites="$suites"
cat <<END

quickstart: done. Your own next, for example:
    source .venv/bin/activate
    vmoe-train --config=digits:router=symphony_vmoe --workdir=$directory/symphony_vmoe
    vmoe-evaluate --workdir=$directory/symphony_vmoe --compare=$directory/vmoe --suites=$suites
END
