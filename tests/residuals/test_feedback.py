"""Error feedback: nothing is lost, and what is kept may be rounded."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.formats import Bf16, Dynamic8, Integer
from outlay.inner_rules import Direction
from outlay.projectors import Columns, Dct, Entries, Orthonormal, Place, Projector, Svd
from outlay.residuals import Feedback, Split
from outlay.testing import check_residual


def run(rule: Feedback, projector: Projector, gradients: list[torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Steps with the coordinates themselves as direction, at a factor of 2: the state at the end and what was projected."""
    shape = (gradients[0].shape[0], gradients[0].shape[1])
    state = {name: torch.zeros(slot.shape, dtype=slot.dtype or torch.float64) for name, slot in rule.layout(shape).items()}
    parts = []
    for number, g in enumerate(gradients):
        place, kept = Place("w", round=number), dict[str, torch.Tensor]()
        whole = rule.prepare(state, g)
        projector.refresh(kept, whole, place)
        r = projector.down(kept, whole, place)
        update = rule.update(state, Split(whole, r, Direction(r.clone(), 2.0), partial(projector.up, kept, shape=shape, place=place)))
        parts.append(projector.up(kept, r, shape, place))
        assert torch.allclose(update, 2.0 * rule.scale * parts[-1])
    return state, parts


def drawn(count: int, seed: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 5, generator=draw, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("projector", [Svd(2), Dct(2), Orthonormal(2), Columns(0.4), Entries(0.3)], ids=repr)
@given(st.integers(1, 6), st.integers(0, 1000), st.sampled_from([0.5, 1.0]))
@settings(max_examples=15, deadline=None)
def test_what_came_is_what_was_projected_and_what_waits(projector: Projector, count: int, seed: int, scale: float) -> None:
    gradients = drawn(count, seed)
    state, parts = run(Feedback(scale), projector, gradients)
    assert set(state) == {"error"}
    assert torch.allclose(sum(parts) + state["error"], sum(gradients), atol=1e-10)  # type: ignore[arg-type]
    assert float(state["error"].norm()) > 0.1


def test_an_error_in_few_bits_is_rounded_once_a_step() -> None:
    gradients = drawn(2, 0)
    state, parts = run(Feedback(states=Bf16()), Columns(0.4), gradients)
    assert {name: value.dtype for name, value in state.items()} == {"error.values": torch.bfloat16}
    waits = (gradients[0] - parts[0]).to(torch.bfloat16)
    assert torch.equal(state["error.values"], (gradients[1] + waits.double() - parts[1]).to(torch.bfloat16))


def test_a_scale_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="scale must be > 0, found 0"):
        Feedback(scale=0)


@pytest.mark.parametrize(
    "rule", [Feedback(), Feedback(0.5, Bf16()), Feedback(states=Dynamic8()), Feedback(states=Integer(bits=4))], ids=repr
)
def test_contract(rule: Feedback) -> None:
    check_residual(rule)
