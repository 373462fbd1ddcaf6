"""The variational autoencoder: what it draws, from which generator, and what it returns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from outlay.models import VariationalAutoencoder
from outlay.models.base import seeded
from outlay.testing import check_model


def test_shapes() -> None:
    module = VariationalAutoencoder(inputs=12, latent=3, hidden=(7, 5)).build(0).module
    seen = module(torch.ones(4, 3, 4))
    assert (seen.logits.shape, seen.mean.shape, seen.log_variance.shape) == ((4, 3, 4), (4, 3), (4, 3))
    widths = [tuple(p.shape) for p in module.parameters() if p.dim() == 2]
    assert widths == [(7, 12), (5, 7), (6, 5), (5, 3), (7, 5), (12, 7)]


def test_in_training_the_code_is_drawn_and_at_evaluation_it_is_the_mean() -> None:
    module = VariationalAutoencoder(inputs=4, latent=2, hidden=(6,)).build(0).module
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with seeded(1, "dropout/0", 5):
        one = module(x)
        noise_after = torch.rand(1)
    with seeded(1, "dropout/0", 5):
        noise = torch.randn(3, 2)
        assert torch.equal(torch.rand(1), noise_after)  # nothing else was drawn
    code = one.mean + torch.exp(one.log_variance / 2) * noise
    assert torch.allclose(one.logits, module.decoder(code), rtol=1e-6)
    with seeded(2, "dropout/0", 5):
        assert not torch.equal(module(x).logits, one.logits)
    module.eval()
    assert torch.equal(module(x).logits, module.decoder(one.mean)) and torch.equal(module(x).logits, module(x).logits)


@pytest.mark.parametrize("fields", [{"inputs": 0}, {"inputs": 4, "latent": 0}, {"inputs": 4, "hidden": (3, 0)}])
def test_wrong_fields_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="inputs, latent and hidden must be > 0, found"):
        VariationalAutoencoder(**fields)


def test_contract() -> None:
    check_model(VariationalAutoencoder(inputs=6, latent=2, hidden=(5,)), torch.ones(2, 6))
    check_model(VariationalAutoencoder(inputs=6, hidden=()), torch.ones(2, 2, 3))
