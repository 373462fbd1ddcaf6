"""Dynamic and anchored fine-tuning: gradients of the probability, the anchor's closed form and its limits, parity with TRL."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_texts import DEMONSTRATIONS, Bigram, bigram, log_prob, same_gradient, text
from trl_peers import PAIRS, TRAINED, agree, as_ours, peer

from outlay.errors import InputError
from outlay.models import Transformer
from outlay.objectives import AnchoredFineTuning, DynamicFineTuning, NextToken
from outlay.testing import check_objective

BATCH = text(DEMONSTRATIONS)


def probabilities(model: Bigram) -> torch.Tensor:
    return torch.cat([log_prob(model, *row) for row in DEMONSTRATIONS]).exp()


def test_by_hand() -> None:
    # every token has probability 1/4: -1/4 log 1/4
    loss, measures = DynamicFineTuning()(Bigram(torch.zeros(4, 4)), text([([1], [2, 3]), ([0], [1])]), {})
    assert float(loss.detach()) == pytest.approx(0.25 * 1.3862943611198906)
    assert float(measures["probability"]) == pytest.approx(0.25)
    assert DynamicFineTuning().weight(BATCH) == 10.0


def test_the_gradient_is_that_of_minus_the_probability_and_not_of_its_logarithm() -> None:
    model = bigram()
    loss, _ = DynamicFineTuning()(model, BATCH, {})
    assert same_gradient(loss, -probabilities(model).mean(), model)
    assert not same_gradient(DynamicFineTuning()(model, BATCH, {})[0], NextToken()(model, BATCH, {})[0], model, 1e-3)


def test_the_weight_lies_between_0_and_1_and_a_certain_token_counts_as_in_plain_fine_tuning() -> None:
    table = torch.full((3, 3), -60.0)
    table[0, 1] = table[1, 2] = 0.0
    loss, measures = DynamicFineTuning()(Bigram(table), text([([0], [1, 2])]), {})
    assert (float(loss), float(measures["probability"])) == (pytest.approx(0.0, abs=1e-20), pytest.approx(1.0))


def test_without_its_anchor_asft_is_dft_and_asks_for_no_reference() -> None:
    model = bigram()

    def never() -> Bigram:
        raise AssertionError("the frozen model was asked for")

    one = AnchoredFineTuning().bind(never)(model, BATCH, {"kl_weight": 0.0})[0]
    other = DynamicFineTuning()(model, BATCH, {})[0]
    assert torch.equal(one, other)
    assert same_gradient(one, other, model, 0.0)


def test_the_anchor_by_its_closed_form() -> None:
    model, start = bigram(0), bigram(1)
    loss, measures = AnchoredFineTuning().bind(lambda: start)(model, BATCH, {"kl_weight": 0.3})
    before = torch.tensor([token for prompt, answer in DEMONSTRATIONS for token in [prompt[-1], *answer[:-1]]])
    anchor, rows = start.table.detach().softmax(-1)[before], model.table.log_softmax(-1)[before]
    divergence = torch.stack([(p * (p.log() - q)).sum() for p, q in zip(anchor, rows, strict=True)]).mean()
    p = probabilities(model)
    assert float(measures["kl"]) == pytest.approx(float(divergence), rel=1e-12)
    assert same_gradient(loss, -p.mean() + 0.3 * divergence, model)
    assert float(loss) == pytest.approx(float((-p * p.log()).mean() + 0.3 * divergence), rel=1e-12)


def test_at_the_start_the_anchor_neither_costs_nor_pulls() -> None:
    model = bigram()
    start = Bigram(model.table.detach())
    loss, measures = AnchoredFineTuning().bind(lambda: start)(model, BATCH, {"kl_weight": 1e3})
    assert float(measures["kl"]) == pytest.approx(0.0, abs=1e-15)
    assert same_gradient(loss, DynamicFineTuning()(model, BATCH, {})[0], model, 1e-9)


def test_a_heavy_anchor_holds_the_model_where_it_began() -> None:
    start, moved = bigram(0), {}
    for kl_weight in (0.0, 100.0):
        model = Bigram(start.table.detach())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5 / (1 + kl_weight))
        objective = AnchoredFineTuning().bind(lambda: start)
        for _ in range(200):
            optimizer.zero_grad()
            objective(model, BATCH, {"kl_weight": kl_weight})[0].backward()
            optimizer.step()
        moved[kl_weight] = float((model.table - start.table).abs().max())
    assert moved[100.0] < 0.05 < 0.2 < moved[0.0]


def test_a_batch_without_a_label_teaches_nothing() -> None:
    model = bigram()
    batch = {**BATCH, "labels": torch.full_like(BATCH["labels"], -100)}
    for objective in (DynamicFineTuning(), AnchoredFineTuning().bind(lambda: bigram(1))):
        loss, _ = objective(model, batch, {})
        assert (float(loss), objective.weight(batch)) == (0.0, 0.0)
        assert not torch.autograd.grad(loss, model.table)[0].any()


def test_unbound_asft_is_refused() -> None:
    with pytest.raises(InputError, match=r"objectives/asft compares with the model as it was; use what bind\(frozen\) returns"):
        AnchoredFineTuning()(bigram(), BATCH, {})


def test_half_precision_probabilities_are_computed_in_single() -> None:
    model = bigram().to(torch.bfloat16)
    assert DynamicFineTuning()(model, BATCH, {})[0].dtype == torch.float32


def test_parity_with_trl(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PAIRS]
    trainer, batch = peer(trl.SFTTrainer, trl.SFTConfig, rows, tmp_path, reference=False, loss_type="dft")
    ours, _ = DynamicFineTuning()(TRAINED.module.eval(), as_ours(batch), {})
    agree(ours, trainer.compute_loss(trainer.model, dict(batch)), TRAINED.module, trainer.model)


def test_contract() -> None:
    tiny = Transformer(hidden=16, layers=1, heads=2, context=32).build(0).module
    check_objective(DynamicFineTuning(), bigram(), BATCH, gradient_of=lambda model, _: -probabilities(model).mean())
    check_objective(DynamicFineTuning(), tiny, BATCH, tolerance=1e-5, differences=False)
    check_objective(AnchoredFineTuning(), bigram(), BATCH, frozen=bigram(3), differences=False)
