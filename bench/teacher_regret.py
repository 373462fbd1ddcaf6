"""Teacher regret: how much of the best arm's learning signal teachers miss on bandits whose success rates are known.

    python bench/teacher_regret.py [--seeds 10]

The signal of an arm is sqrt(p (1 - p)). Each line is the mean regret over 80 batches of 16 questions with 8 answers, averaged over seeds, with the
95 % interval of its mean; and the paired difference to the uniform teacher. The oracle's regret is 0. Nothing is learnt in these bandits: they tell
whether a teacher finds what is worth asking and notices when that changes, not whether asking it helps.
"""

from __future__ import annotations

import argparse
import sys

from outlay.bench.statistics import mean_interval, paired_losses
from outlay.estimators import Beta, Estimator, Windowed
from outlay.teachers import Cures, Cyclical, Dump, Floor, HistoricalVariance, Lim, Pcl, Sec, Teacher, Uniform
from outlay.testing.bandits import STATIONARY, SWITCHING, regrets

FADING = Beta(decay=0.9)
PLAYERS: dict[str, tuple[Teacher | None, Estimator]] = {
    "uniform": (Uniform(), Windowed()),
    "oracle": (None, Windowed()),
    "sec (tau 1)": (Sec(), Windowed()),
    "sec (tau 0.2)": (Sec(tau=0.2), Windowed()),
    "dump": (Dump(), Windowed()),
    "cures, window": (Cures(), Windowed()),
    "cures, fading beta": (Cures(), FADING),
    "pcl, window": (Pcl(), Windowed()),
    "pcl, fading beta": (Pcl(), FADING),
    "floor 0.1 under cures, window": (Floor(Cures(), 0.1), Windowed()),
    "historical_variance": (HistoricalVariance(), Windowed()),
    "lim": (Lim(), Windowed()),
    "cyclical": (Cyclical(), Windowed()),
}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = range(parser.parse_args().seeds)
    for title, bandit in (("stationary", STATIONARY), ("switching", SWITCHING)):
        print(f"{title}: {bandit.rates}" + (f", then {bandit.later}" if bandit.later else ""))
        print(f"  {'teacher':<32}{'regret':<28}against uniform")
        found: dict[str, dict[int, float]] = {}
        for name, (teacher, estimator) in PLAYERS.items():
            found[name] = {seed: float(regrets(teacher, bandit, estimator, seed=seed).mean()) for seed in seeds}
            against = paired_losses(found[name], found["uniform"])
            print(f"  {name:<32}{mean_interval(list(found[name].values()))!s:<28}{against}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
