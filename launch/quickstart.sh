#!/usr/bin/env bash
# Trains a plain and an attention-informed V-MoE on the embedded digits, with the same seeds and data order, and
# compares them on the mini suites. What an earlier start has finished is not done again.
#
#   ./launch/quickstart.sh [DIRECTORY]       # default runs/quickstart; relative to the root of the repository
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

directory="${1:-${QUICKSTART_DIR:-runs/quickstart}}"
suites=clean,c,r,a,o

./launch/install.sh
for router in vmoe attention_vmoe; do
    .venv/bin/python -m vmoe_inform.train --config="configs/digits.py:router=$router" --workdir="$directory/$router"
done
.venv/bin/python -m vmoe_inform.evaluate --workdir="$directory/vmoe" --suites="$suites" --noreport
.venv/bin/python -m vmoe_inform.evaluate --workdir="$directory/attention_vmoe" --compare="$directory/vmoe" \
    --suites="$suites"
