"""Start-up: import of outlay < 0.5 s and ``outlay --help`` < 1 s, each in a fresh interpreter.

python bench/startup.py [--runs 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import outlay": (["-c", "import outlay"], 0.5),
    "outlay --help": (["-m", "outlay.cli", "--help"], 1.0),
}


def timed(arguments: list[str]) -> float:
    """Return the seconds of a whole process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> int:
    """Time both, and an empty interpreter beside them; the exit status is 1 when a median is over its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    empty = statistics.median(timed(["-c", "pass"]) for _ in range(runs))
    print(f"empty interpreter: median {empty:.3f} s")
    failed = False
    for name, (arguments, bar) in COMMANDS.items():
        timed(arguments)
        middle = statistics.median(timed(arguments) for _ in range(runs))
        failed |= middle >= bar
        print(f"{name}: median {middle:.3f} s of {runs} (bar {bar} s)")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
