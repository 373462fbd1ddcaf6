"""The evidence lower bound: closed forms against torch's distributions, the weight of the divergence, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from outlay.errors import InputError
from outlay.models import VariationalAutoencoder
from outlay.models.autoencoder import Encoded
from outlay.objectives import Variational
from outlay.testing import check_objective


class Fixed(nn.Module):
    """Says what it is told to."""

    def __init__(self, logits: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor) -> None:
        super().__init__()
        self.parts = nn.ParameterList([logits, mean, log_variance])

    def forward(self, inputs: torch.Tensor) -> Encoded:
        return Encoded(*self.parts)


def drawn(seed: int, count: int = 3, pixels: int = 4, latent: int = 2) -> tuple[Fixed, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    parts = [torch.randn(count, size, generator=draw, dtype=torch.float64) for size in (pixels, latent, latent)]
    return Fixed(*parts), torch.rand(count, pixels, generator=draw, dtype=torch.float64)


def test_by_hand() -> None:
    # one pixel of value 1, logit 0: log 2; mean 2, variance e: (4 + e - 1 - 1) / 2
    model = Fixed(torch.zeros(1, 1), torch.full((1, 1), 2.0), torch.ones(1, 1))
    loss, parts = Variational("bernoulli")(model, {"inputs": torch.ones(1, 1)}, {"beta": 3.0})
    assert parts["reconstruction"].item() == pytest.approx(math.log(2))
    assert parts["divergence"].item() == pytest.approx((2 + math.e) / 2)
    assert loss.item() == pytest.approx(math.log(2) + 3 * (2 + math.e) / 2)
    # gaussian of deviation 1/2: (1 - 0)^2 / (2 / 4) + log(1/2) + log(2 pi) / 2
    _, parts = Variational("gaussian", 0.5)(model, {"inputs": torch.ones(1, 1)}, {})
    assert parts["reconstruction"].item() == pytest.approx(2 + math.log(0.5) + math.log(2 * math.pi) / 2)


@given(st.integers(0, 1000), st.floats(min_value=0.1, max_value=3), st.floats(min_value=0, max_value=8))
def test_agrees_with_torchs_distributions(seed: int, deviation: float, beta: float) -> None:
    model, x = drawn(seed)
    logits, mean, log_variance = (part.detach() for part in model.parts)
    divergence = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1).mean()
    for objective, log_likelihood in (
        (Variational("gaussian", deviation), Normal(logits, deviation).log_prob(x)),
        (Variational("bernoulli"), Bernoulli(logits=logits, validate_args=False).log_prob(x)),
    ):
        loss, parts = objective(model, {"inputs": x}, {"beta": beta})
        assert parts["divergence"].item() == pytest.approx(divergence.item(), rel=1e-9)
        assert parts["reconstruction"].item() == pytest.approx(-log_likelihood.sum(1).mean().item(), rel=1e-9)
        assert loss.item() == pytest.approx(-log_likelihood.sum(1).mean().item() + beta * divergence.item(), rel=1e-9)


def test_the_prior_has_no_divergence_and_beta_0_leaves_it_out() -> None:
    model, x = drawn(0)
    with torch.no_grad():
        model.parts[1].zero_()
        model.parts[2].zero_()
    assert Variational()(model, {"inputs": x}, {})[1]["divergence"].item() == 0.0
    model, x = drawn(1)
    loss, parts = Variational()(model, {"inputs": x}, {"beta": 0.0})
    assert torch.equal(loss.detach(), parts["reconstruction"])


def test_images_of_any_shape() -> None:
    model = VariationalAutoencoder(inputs=12, latent=2, hidden=(5,)).build(0).module.eval()
    batch = {"inputs": torch.rand(3, 1, 3, 4, generator=torch.Generator().manual_seed(0))}
    flat = {"inputs": batch["inputs"].flatten(1)}
    assert Variational()(model, batch, {})[0].item() == pytest.approx(Variational()(model, flat, {})[0].item())


def test_data_outside_0_and_1_is_no_bernoullis() -> None:
    model, x = drawn(0)
    with pytest.raises(InputError, match=r"data in \[0, 1\], found 0.* to 2.*; use likelihood: gaussian"):
        Variational("bernoulli")(model, {"inputs": 2.5 * x}, {})
    Variational("gaussian")(model, {"inputs": 2.5 * x}, {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"likelihood": "laplace"}, "likelihood must be gaussian or bernoulli, found 'laplace'"),
        ({"deviation": 0.0}, "deviation must be finite and > 0, found 0.0"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Variational(**fields)


@pytest.mark.parametrize("objective", [Variational(), Variational("gaussian", 0.3), Variational("bernoulli")])
def test_contract(objective: Variational) -> None:
    model = VariationalAutoencoder(inputs=6, latent=2, hidden=(5,)).build(0).module
    check_objective(objective, model, {"inputs": torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(2))})
