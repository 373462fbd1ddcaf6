"""What objectives over answers share: the parts that are worked out in another way where that is cheaper."""

from __future__ import annotations

import torch

from outlay.sequences import TOGETHER, entropies


def test_entropies_are_the_same_in_portions_without_gradients() -> None:
    logits = torch.randn(2 * TOGETHER + 7, 5, generator=torch.Generator().manual_seed(0)).double()
    logits[3, 1:] = -torch.inf
    with torch.no_grad():
        found = entropies(logits)
    assert torch.equal(found, entropies(logits))
    assert found[3] == 0
    assert torch.allclose(found[4:], torch.distributions.Categorical(logits=logits[4:]).entropy())
    assert torch.allclose(entropies(torch.zeros(2, 8)), torch.tensor(8.0).log())
