#!/usr/bin/env bash
# Sets up a virtual environment with outlay (editable) and some of its extras:   scripts/setup.sh all,dev,docs
#
# PYTHON       the interpreter to build on          (python3)
# VENV         where the environment goes           (.venv)
# CONSTRAINTS  exact versions; empty for the newest (constraints.txt)
# TORCH_INDEX  asked for torch's processor-only wheels where the configured index does not offer them
set -euo pipefail
cd "$(dirname "$0")/.."

extras=${1:?usage: scripts/setup.sh EXTRAS, for example: scripts/setup.sh all,dev,docs}
python=${PYTHON:-python3}
venv=${VENV:-.venv}
constraints=${CONSTRAINTS-constraints.txt}
torch_index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

if ! command -v "$python" >/dev/null; then
    echo "setup: '$python' was not found; outlay needs Python 3.11 or newer. Install one, or name one: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi
if ! "$python" -c "$new_enough"; then
    echo "setup: '$python' is $("$python" --version 2>&1); outlay needs Python 3.11 or newer. Name one: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi

# An environment is kept when its interpreter still runs and is new enough: one copied along or left by a removed Python is made anew.
if ! "$venv/bin/python" -c "$new_enough" 2>/dev/null; then
    echo "setup: making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
        ${constraints:+--constraint "$constraints"} "$@" --editable ".[$extras]" 2>&1 | tee "$log"
}

if ! install; then
    if [ -n "$constraints" ] && grep -qE '\(constraint\) torch==|matching distribution found for torch==' "$log"; then
        echo "setup: the configured package index has no processor-only torch; asking $torch_index as well"
        install --extra-index-url "$torch_index"
    else
        echo "setup: installing outlay[$extras] failed; the reason stands above." >&2
        echo "setup: if a package failed to build, install a C compiler and Python's headers (Debian: build-essential python3-dev)." >&2
        exit 1
    fi
fi
