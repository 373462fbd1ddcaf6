"""Which bytes are alive when."""

import torch

from outlay.planning.live import LiveBytes


def test_follows_tensors_from_birth_to_death() -> None:
    with LiveBytes([]) as live:
        first = torch.zeros(100)
        second = first + 1
        assert live.bytes() == 800
        view = second[10:]
        assert live.bytes() == 800, "a view takes nothing"
        del second
        assert live.bytes() == 800, "the view holds its storage"
        del view
        assert live.bytes() == 400
        third = torch.zeros(50, dtype=torch.float64)
    assert live.moments([]) == [(400, 0, 0), (800, 0, 0), (800, 0, 0)]
    del first, third


def test_weights_are_not_counted() -> None:
    weight = torch.zeros(100)
    with LiveBytes([weight]) as live:
        same = weight.view(10, 10)
        assert live.bytes() == 0
        same = same * 2
        assert live.bytes() == 400


def test_gradients_are_told_apart_and_pending_until_they_reach_their_parameter() -> None:
    weight = torch.nn.Parameter(torch.ones(25))
    handle = weight.register_post_accumulate_grad_hook
    with LiveBytes([weight]) as live:
        hook = handle(live.accumulated)
        out = (weight * torch.full((25,), 2.0)).sum()
        out.backward()
        after = torch.zeros(1)
        hook.remove()
    moments = live.moments([weight.grad])
    assert max(kept for _, kept, _ in moments) == 100
    other, kept, pending = moments[-1]
    assert (kept, pending) == (100, 0), "after it was accumulated a gradient is kept, not pending"
    assert other >= after.nbytes
    assert any(pending == 100 for _, _, pending in moments)
