#!/usr/bin/env bash
# Everything that must hold before a change is merged: lint, format, types, tests. Stops at the first that fails.
#
#   ./launch/test.sh [ARGUMENTS OF PYTEST]   # e.g. ./launch/test.sh tests/routing -k symphony
#
# On a machine with nothing but Python it installs what it needs: .venv, and what the tests look at pages with (Chromium,
# and libatomic for the driver), where it may: as root, or with sudo that asks for no password, on Debian and its kin.
# Otherwise these tests are skipped, and the last line says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

has_browser() {
    { command -v chromium || command -v chromium-browser || command -v google-chrome; } &&
        .venv/bin/python -m playwright --version
} >/dev/null 2>&1

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_browser() {
    command -v apt-get && as_root true || return 1
    for _ in 1 2 3; do # package mirrors fail now and then
        if as_root apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install -qq --yes --no-install-recommends chromium libatomic1; then
            return
        fi
        sleep 5
    done
    return 1
}

./launch/install.sh
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-test.txt
if ! has_browser; then
    echo "test: installing Chromium"
    log="$(install_browser 2>&1)" || echo "test: Chromium could not be installed: ${log##*$'\n'}" >&2
fi
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy vmoe_inform configs
# Each process gets half of the tests in a row, so that what tests of a file share is made once; one that is through
# takes half of what the other has left.
.venv/bin/python -m pytest -n 2 --dist=worksteal "$@"
