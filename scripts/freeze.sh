#!/usr/bin/env bash
# Writes constraints.txt anew: keeps its head (the choice of torch and what must never come in), resolves everything else afresh in a
# clean environment, and notes what was chosen.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed '/^# -- chosen/,$d' constraints.txt > "$work/head.txt"
VENV="$work/venv" CONSTRAINTS="$work/head.txt" scripts/setup.sh all,dev,docs
"$work/venv/bin/python" -m pip check
{
    cat "$work/head.txt"
    echo "# -- chosen by the resolver on $("$work/venv/bin/python" -c 'import sys, platform; print(f"Python {sys.version_info.major}.{sys.version_info.minor}, {platform.system()}")')"
    "$work/venv/bin/python" -m pip freeze --all --exclude-editable | grep -viE '^(torch|pip)==' | LC_ALL=C sort -f
} > "$work/constraints.txt"
mv "$work/constraints.txt" constraints.txt
