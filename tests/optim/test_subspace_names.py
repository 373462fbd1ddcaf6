"""Which parameters the named subspace optimizers leave to Adam, and to which Adam."""

from __future__ import annotations

from typing import Any

import pytest
from small_steps import follows_adam

from outlay.formats import Bf16
from outlay.optim import Apollo, ApolloMini, Fira, Frugal, GaLore, NaturalGaLore, OptimizerSpec
from outlay.projectors import Svd
from outlay.testing import check_optimizer

METHODS: list[type] = [GaLore, Fira, Apollo, ApolloMini, NaturalGaLore, Frugal]


def adam(spec: OptimizerSpec, name: str, shape: tuple[int, ...] = (6, 4)) -> bool:
    frugal = isinstance(spec, Frugal)
    return follows_adam(spec, 1e-4, not frugal, frugal, name, shape)


@pytest.mark.parametrize("method", METHODS)
def test_embeddings_output_layers_and_all_but_matrices_follow_adam_with_the_methods_eps(method: Any) -> None:
    spec = method(eps=1e-4)
    for name, shape in (
        ("model.embed_tokens.weight", (6, 4)),
        ("lm_head.weight", (6, 4)),
        ("norm.weight", (4,)),
        ("conv.weight", (2, 3, 2)),
    ):
        assert adam(spec, name, shape), name
    assert not adam(spec, "layers.0.weight")


@pytest.mark.parametrize("method", METHODS)
def test_the_names_may_be_others(method: Any) -> None:
    spec = method(eps=1e-4, names=("layers.0",))
    assert adam(spec, "layers.0.weight")
    assert not adam(spec, "layers.1.weight") and not adam(spec, "lm_head.weight")


@pytest.mark.parametrize("method", METHODS)
def test_moments_may_be_kept_in_few_bits(method: Any) -> None:
    # by singular vectors, so that all have a moment of 6 x 2 in their only matrix
    options = {"rank": 2} if method is not Frugal else {}
    spec = method(projector=Svd(2), states=Bf16(), **options)
    check_optimizer(spec)
    saved = method(projector=Svd(2), **options).state_bytes({"w": (6, 4)}) - spec.state_bytes({"w": (6, 4)})
    assert saved == 2 * 2 * 12
