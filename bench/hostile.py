"""Hostile programs: judge 200 of them and honest ones in between; nothing gets out, hangs, stays or is rewarded.

    python bench/hostile.py [--level best] [--lanes 4] [--seconds 0.5]

One line a kind: programs, escapes, programs that were not judged to have failed, programs judged later than a second after their limit, processes
left, honest programs that did not pass, and the longest time over the limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from outlay.testing.hostile import attack


def main() -> int:
    """Print the table; return how many kinds got anything they should not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", choices=("best", "namespaces", "landlock"), default="best")
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        reports = attack(Path(folder), lanes=options.lanes, seconds=options.seconds, level=options.level)
    print(f"{'kind':30} programs escaped rewarded late orphans dishonoured  slowest over limit")
    bad = 0
    for report in reports:
        late = sum(attack.over > 1.0 for attack in report.attacks)
        counts = (len(report.escapes), report.rewarded, late, len(report.orphans), options.lanes - report.honest)
        bad += any(counts)
        slowest = max(attack.over for attack in report.attacks)
        print(
            f"{report.kind:30} {len(report.attacks):8} {counts[0]:7} {counts[1]:8} {counts[2]:4} {counts[3]:7} {counts[4]:11}  {slowest:+.3f} s"
        )
        for one in report.attacks:
            if one.outcome != "failed" or one.over > 1.0:
                print(f"    {one.program.variant}: {one.outcome} ({one.why}), {one.over:+.3f} s")
        for escape in report.escapes:
            print(f"    {escape}")
    print(f"{sum(len(report.attacks) for report in reports)} programs in {time.monotonic() - begin:.0f} s")
    return bad


if __name__ == "__main__":
    sys.exit(main())
