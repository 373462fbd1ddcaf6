"""Distillation: divergences against their sums, the sampled estimator against its expectation, covering and seeking, parity with TRL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import DEMONSTRATIONS, Bigram, bigram, same_gradient, text
from torch import nn

from outlay.errors import InputError
from outlay.models import Pretrained, Transformer
from outlay.models.base import Loaded
from outlay.objectives import Distillation
from outlay.objectives.distillation import divergence
from outlay.testing import check_objective

BATCH = text(DEMONSTRATIONS)


@dataclass(frozen=True)
class Given:
    """A model that is there already."""

    module: nn.Module

    def build(self, seed: int) -> Loaded:
        return Loaded(self.module)


def never() -> nn.Module:
    raise AssertionError("the student's start was asked for")


def against(teacher: nn.Module, kind: Any, mixture: float = 0.5) -> Any:
    return Distillation(Given(teacher), kind, mixture).bind(never)


def rows(model: Bigram) -> torch.Tensor:
    """Log probabilities at the labelled positions, in row order."""
    before = torch.tensor([token for prompt, answer in DEMONSTRATIONS for token in [prompt[-1], *answer[:-1]]])
    return model.table.log_softmax(-1)[before]


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_by_its_sum(kind: str) -> None:
    student, teacher = bigram(0), bigram(1)
    s, t = rows(student).exp(), rows(teacher).exp().detach()
    m = 0.3 * t + 0.7 * s
    expected = {
        "forward_kl": (t * (t / s).log()).sum(-1).mean(),
        "reverse_kl": (s * (s / t).log()).sum(-1).mean(),
        "jensen_shannon": (0.3 * (t * (t / m).log()).sum(-1) + 0.7 * (s * (s / m).log()).sum(-1)).mean(),
    }[kind]
    loss, measures = against(teacher, kind, 0.3)(student, BATCH, {})
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)
    assert same_gradient(loss, expected, student)
    wanted = torch.tensor([token for _, answer in DEMONSTRATIONS for token in answer])[:, None]
    reward = (t.log().gather(1, wanted) - s.log().gather(1, wanted)).mean()
    assert float(measures["implicit_reward"]) == pytest.approx(float(reward), rel=1e-12)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jensen_shannon", "sampled"])
def test_a_student_like_its_teacher_learns_nothing(kind: str) -> None:
    student = bigram()
    loss, _ = against(Bigram(student.table.detach()), kind)(student, BATCH, {})
    assert float(loss) == pytest.approx(0.0, abs=1e-12)
    assert torch.autograd.grad(loss, student.table)[0].abs().max() < 1e-12


def test_the_mixture_goes_from_one_divergence_to_the_other() -> None:
    s, t = rows(bigram(0)), rows(bigram(1))
    near = 1e-6
    assert torch.allclose(divergence(s, t, "jensen_shannon", near) / near, divergence(s, t, "forward_kl"), rtol=1e-4)
    assert torch.allclose(divergence(s, t, "jensen_shannon", 1 - near) / near, divergence(s, t, "reverse_kl"), rtol=1e-4)


def test_the_sampled_gradient_is_right_on_average() -> None:
    """Over all answers of one token, weighted by the student's own probabilities, it is the gradient of KL(S || T)."""
    student, teacher = bigram(0), bigram(1)
    every = text([([2], [token]) for token in range(7)])
    objective = against(teacher, "sampled")
    shares = student.table.detach()[2].softmax(-1)
    total = torch.zeros_like(student.table)
    for token, share in enumerate(shares):
        one = {name: column[token : token + 1] for name, column in every.items()}
        total += share * torch.autograd.grad(objective(student, one, {})[0], student.table)[0]
    s, t = student.table[2].log_softmax(-1), teacher.table.detach()[2].log_softmax(-1)
    (expected,) = torch.autograd.grad((s.exp() * (s - t)).sum(), student.table)
    assert torch.allclose(total, expected, atol=1e-12)


def test_forward_covers_and_reverse_seeks() -> None:
    """A teacher with two modes; a student that can only shift one bump along the tokens."""
    places = torch.arange(21, dtype=torch.float64)
    teacher = torch.logsumexp(torch.stack([-((places - at) ** 2) / 2 for at in (5.0, 15.0)]), 0).log_softmax(-1)
    ended = {}
    for kind in ("forward_kl", "reverse_kl"):
        at = torch.tensor([6.0, 0.0], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([at], lr=0.05)
        for _ in range(1500):
            optimizer.zero_grad()
            student = (-((places - at[0]) ** 2) / (2 * at[1].exp() ** 2)).log_softmax(-1)
            divergence(student[None], teacher[None], kind).sum().backward()
            optimizer.step()
        ended[kind] = (float(at[0]), float(at[1].exp()))
    assert ended["forward_kl"][0] == pytest.approx(10.0, abs=0.1) and ended["forward_kl"][1] > 4
    assert ended["reverse_kl"][0] == pytest.approx(5.0, abs=0.1) and ended["reverse_kl"][1] < 1.5


def test_answers_are_compared_at_the_temperature_they_were_sampled_at() -> None:
    student, teacher = bigram(0), bigram(1)
    warm = {**BATCH, "temperature": torch.full((4,), 2.0)}
    halved = against(Bigram(teacher.table.detach() / 2), "reverse_kl")(Bigram(student.table.detach() / 2), BATCH, {})[0]
    assert float(against(teacher, "reverse_kl")(student, warm, {})[0]) == pytest.approx(float(halved), rel=1e-12)


def test_a_saved_model_teaches(tmp_path: Path) -> None:
    spec = Transformer(hidden=16, layers=1, heads=2, context=32)
    loaded = spec.build(7)
    loaded.save(loaded.module, tmp_path)
    objective: Any = Distillation(Pretrained(str(tmp_path))).bind(never)
    assert not any(p.requires_grad for p in objective._frozen().parameters())
    student = spec.build(7).module
    loss, _ = objective(student, BATCH, {})
    assert float(loss) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(InputError, match="the teacher tells 100 tokens apart and the student 7; distillation needs one tokenizer"):
        objective(bigram(), BATCH, {})


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match=r"objectives/distillation has no teacher yet; use what bind\(frozen\) returns"):
        Distillation(Given(bigram(1)))(bigram(), BATCH, {})
    with pytest.raises(ValueError, match="divergence must be one of forward_kl, .*, found 'l2'"):
        Distillation(Given(bigram()), "l2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mixture must lie in \(0, 1\), found 1.0; its limits are forward_kl and reverse_kl"):
        Distillation(Given(bigram()), mixture=1.0)


@pytest.mark.parametrize(("kind", "beta"), [("forward_kl", 0.0), ("reverse_kl", 1.0), ("jensen_shannon", 0.3)])
def test_parity_with_trl(kind: Any, beta: float) -> None:
    gkd = pytest.importorskip("trl.experimental.gkd")
    student, teacher = bigram(0), bigram(1)
    s, t = (model(BATCH["input_ids"], BATCH["attention_mask"]).logits[:, :-1] for model in (student, teacher))
    theirs = gkd.GKDTrainer.generalized_jsd_loss(s, t.detach(), labels=BATCH["labels"][:, 1:], beta=beta)
    ours, _ = against(teacher, kind, beta or 0.5 if kind != "reverse_kl" else 0.5)(student, BATCH, {})
    assert float(ours) == pytest.approx(float(theirs), rel=1e-7)
    assert same_gradient(ours, theirs, student, 1e-6)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_contract(kind: Any) -> None:
    check_objective(Distillation(Given(bigram(1)), kind), bigram(), BATCH)


def test_contract_of_the_sampled_one() -> None:
    student, teacher = bigram(), bigram(1)
    wanted = torch.tensor([token for _, answer in DEMONSTRATIONS for token in answer])[:, None]
    reward = (rows(teacher) - rows(student)).gather(1, wanted).detach()

    def surrogate(model: Any, _: dict[str, torch.Tensor]) -> torch.Tensor:
        return -(reward * rows(model).gather(1, wanted)).mean()

    check_objective(Distillation(Given(teacher), "sampled"), student, BATCH, gradient_of=surrogate)
