"""Runs that several tests read; each is made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_runs import digits, examined, language

import outlay
from outlay.planning.devices import Rate
from outlay.train import Recipe, Result


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums must not depend on how many cores are free."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def known_device() -> Iterator[None]:
    """Plans of runs must not measure this machine over and over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("outlay.train.planner.training_rate", lambda device, precision: Rate(1e9, 5e8, 2e9, "made up for tests"))
        yield


@pytest.fixture
def digits_recipe() -> Recipe:
    """A small perceptron on the digits, 60 steps."""
    return digits()


@pytest.fixture
def language_recipe() -> Recipe:
    """A transformer of one layer on documents in memory, 12 steps."""
    return language()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run of 60 steps with evaluations, dropout and a checkpoint every 10 steps; what others are compared with."""
    return outlay.run(examined(), tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="session")
def finished_folder(finished: Result) -> Path:
    """The directory of ``finished``; read only."""
    return Path(finished.folder)
