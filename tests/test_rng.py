"""Named streams: the seed follows from root, name and counter alone."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.rng import derive, numpy_generator, torch_generator

roots = st.integers(min_value=-(2**64), max_value=2**64)
names = st.text(max_size=20)


def test_streams_stay_the_same_from_release_to_release() -> None:
    """Saved runs depend on these numbers: a change here breaks every resumed run."""
    assert derive(0, "data") == 2836735404938184911
    assert derive(0, "data", 1) == 7522917479336184025
    assert derive(7, "dropout", 3) == 2546900078115623005


@settings(max_examples=100, deadline=None)
@given(roots, names, st.integers(min_value=0, max_value=2**40))
def test_a_seed_fits_63_bits_and_repeats(seed: int, name: str, counter: int) -> None:
    assert 0 <= derive(seed, name, counter) < 2**63
    assert derive(seed, name, counter) == derive(seed, name, counter)


@settings(max_examples=100, deadline=None)
@given(roots, names, st.integers(min_value=0, max_value=2**40))
def test_each_part_of_the_key_matters(seed: int, name: str, counter: int) -> None:
    key = derive(seed, name, counter)
    assert len({key, derive(seed + 1, name, counter), derive(seed, name + "x", counter), derive(seed, name, counter + 1)}) == 4


def test_parts_of_the_key_do_not_run_into_one_another() -> None:
    assert len({derive(1, "1", 1), derive(11, "", 1), derive(1, "", 11), derive(1, "11"), derive(11, "1")}) == 5


def test_no_two_streams_collide() -> None:
    keys = {derive(seed, name, counter) for seed in range(10) for name in ("data", "init", "probe") for counter in range(300)}
    assert len(keys) == 9000


def test_generators_draw_from_their_own_stream_whatever_was_drawn_elsewhere() -> None:
    first = numpy_generator(1, "data").random(4)
    numpy_generator(1, "init").random(100)
    np.random.default_rng().random(3)
    assert (numpy_generator(1, "data").random(4) == first).all()
    assert not (numpy_generator(1, "data", 1).random(4) == first).any()
    assert not (numpy_generator(2, "data").random(4) == first).any()

    state = torch.get_rng_state()
    drawn = torch.rand(4, generator=torch_generator(1, "data"))
    torch_generator(1, "init")
    assert torch.equal(torch.rand(4, generator=torch_generator(1, "data")), drawn)
    assert not torch.equal(torch.rand(4, generator=torch_generator(1, "data", 1)), drawn)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
