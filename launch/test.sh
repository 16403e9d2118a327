#!/usr/bin/env bash
# Everything that must hold before a change is merged: lint, format, types, tests. Stops at the first that fails.
#
#   ./launch/test.sh [ARGUMENTS OF PYTEST]   # e.g. ./launch/test.sh tests/routing -k symphony
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./launch/install.sh
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-test.txt
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy vmoe_inform configs
if ! command -v chromium chromium-browser google-chrome >/dev/null; then
    echo "test: no Chromium: tests/evaluation/test_page.py will fail. On Debian: apt-get install chromium" >&2
fi
# Each process gets half of the tests in a row, so that what tests of a file share is made once; one that is through
# takes half of what the other has left.
.venv/bin/python -m pytest -n 2 --dist=worksteal "$@"
