#!/usr/bin/env bash
# Makes .venv at the root of the repository and installs this package with its pinned requirements into it.
# A second start does nothing while requirements.txt, pyproject.toml, setup.py and this script are the same.
#
#   ./launch/install.sh                      # the first Python 3.11 to 3.13 that it finds; without one, uv fetches one
#   PYTHON=/path/to/python ./launch/install.sh
#
# With Python 3.11 the last JAX for it is installed (0.10), with 3.12 or newer the newest (0.12): see requirements.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python

usable() { # a Python for which requirements.txt is, that can make environments with pip in them
    "$1" -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14); import ensurepip, venv' >/dev/null 2>&1
}

candidates=(python3.11 python3.12 python3.13 python3 python)
if [ -n "${PYTHON:-}" ]; then
    candidates=("$PYTHON")
fi

find_python() {
    local candidate
    for candidate in "${candidates[@]}"; do
        if usable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

version() {
    "$1" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null
}

fits() { # .venv has a usable Python, of the version that PYTHON asks for
    usable "$python" && { [ -z "${PYTHON:-}" ] || [ "$(version "$python")" = "$(version "$PYTHON")" ]; }
}

find_uv() {
    command -v uv || { [ -x ~/.local/bin/uv ] && echo ~/.local/bin/uv; }
}

make_environment() {
    local base uv
    if base="$(find_python)"; then
        echo "install: making .venv with $("$base" --version)"
        "$base" -m venv --clear .venv
    elif [ -z "${PYTHON:-}" ] && uv="$(find_uv)"; then
        echo "install: no Python 3.11 to 3.13 among ${candidates[*]}; making .venv with one from uv"
        "$uv" venv --quiet --clear --seed --python '>=3.11,<3.14' .venv
    else
        echo "install: expected Python 3.11, 3.12 or 3.13 with its venv module (on Debian: apt-get install python3-venv);" \
            "tried: ${candidates[*]}. Set PYTHON to say which one to use, or let uv fetch one:" >&2
        echo '    python3 -m pip install --user uv && ./launch/install.sh' >&2
        return 1
    fi
}

stamp=.venv/installed
# The place is part of it: an editable install and the scripts of an environment hold absolute paths.
wanted="$(pwd) $(cat requirements.txt pyproject.toml setup.py launch/install.sh | cksum)"
if fits && [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

if ! fits; then
    make_environment
fi
rm -f "$stamp"
echo "install: installing the requirements into .venv"
"$python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .
# It declares opencv-python, which fails to import where the system has no libGL (a container, a cluster's node);
# opencv-python-headless and its other needs are among the requirements.
"$python" -m pip install --quiet --disable-pip-version-check --no-deps imagecorruptions-imaug==1.1.5
echo "$wanted" >"$stamp"
echo "install: done. For the commands (vmoe-train, vmoe-evaluate, ...) in this shell: source .venv/bin/activate"
