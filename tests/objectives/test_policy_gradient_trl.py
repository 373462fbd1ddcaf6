"""Parity with TRL: the loss of its own GRPO and RLOO trainers, on a real model and the same rollouts, in value and gradient.

Definitions that differ: TRL adds 1e-4 to the deviation where we add 1e-6 (both are fields; compared in the tests of ``Group``). CISPO's value is
clip(r) A log pi there and the integral of its gradient here, so only gradients agree. TRL's entropy bonus is always a mean over tokens, ours
aggregated as the loss is, so they agree for the token mean. TRL multiplies the divergence by the ratio by default; here that is a field of the anchor.
Its share of clipped tokens leaves out those that the bound on bad answers' ratios stops.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from trl_peers import TRAINED

from outlay.advantages import Group
from outlay.anchors import Entropy, Kl
from outlay.denominators import Behaviour, Old
from outlay.objectives import Cispo, Dapo, Dler, DrGrpo, Grpo, Gspo, PolicyGradient, Rloo
from outlay.sequences import frozen_log_probs
from outlay.sources.base import IGNORED
from outlay.stabilisers import Clip

PROMPTS = ["ab", "ab", "ab", "cdefg", "cdefg", "cdefg"]
ANSWERS = ["xyz", "q", "abcdef", "z", "mnop", "hello wo"]
REWARDS = [1.0, 0.0, 0.5, 1.0, 1.0, 0.25]
WIDTH, TEMPERATURE, LIMIT = 5, 0.8, 8


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    def made(trainer: type, config: type, folder: Path) -> Any:
        told = config(
            output_dir=str(folder), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=6,
            num_generations=3, max_completion_length=LIMIT, temperature=TEMPERATURE, beta=0.0,
        )  # fmt: skip
        one = trainer(
            model=copy.deepcopy(TRAINED.module), reward_funcs=lambda completions, **_: [0.0] * len(completions), args=told,
            train_dataset=Dataset.from_list([{"prompt": "ab"}] * 6), processing_class=TRAINED.tokenizer,
        )  # fmt: skip
        one.model.eval()
        return one

    return {
        "grpo": made(GRPOTrainer, GRPOConfig, tmp_path_factory.mktemp("grpo")),
        "rloo": made(RLOOTrainer, RLOOConfig, tmp_path_factory.mktemp("rloo")),
    }


def encoded(text: str) -> list[int]:
    return list(TRAINED.tokenizer(text, add_special_tokens=False)["input_ids"])


def ours() -> dict[str, torch.Tensor]:
    """Return the rollouts in our layout; written by a policy a little different from the one that is trained."""
    rows = [(encoded(p), encoded(a)) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    ids = torch.zeros(6, WIDTH + LIMIT, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for i, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[i, :end], mask[i, :end] = torch.tensor(prompt + answer), 1
        labels[i, len(prompt) : end] = torch.tensor(answer)
    batch = {
        "input_ids": ids, "attention_mask": mask, "labels": labels, "group": torch.tensor([0, 0, 0, 1, 1, 1]), "reward": torch.tensor(REWARDS),
        "temperature": torch.full((6,), TEMPERATURE), "limit": torch.full((6,), LIMIT),
    }  # fmt: skip
    written = frozen_log_probs(TRAINED.module, batch)
    noise = torch.randn(written.shape, generator=torch.Generator().manual_seed(1))
    return {**batch, "behaviour": torch.where(labels != IGNORED, written + 0.3 * noise, 0.0)}


def theirs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a prepared batch in TRL's layout: prompts padded on the left, answers apart."""
    prompts, answers = (torch.zeros(6, size, dtype=torch.long) for size in (WIDTH, LIMIT))
    prompt_mask, answer_mask = torch.zeros_like(prompts), torch.zeros_like(answers)
    columns = {name: torch.zeros(6, LIMIT) for name in ("behaviour", "old", "reference", "advantage") if name in batch}
    for i in range(6):
        where = batch["labels"][i] != IGNORED
        start, size = int(where.long().argmax()), int(where.sum())
        prompts[i, WIDTH - start :], prompt_mask[i, WIDTH - start :] = batch["input_ids"][i, :start], 1
        answers[i, :size], answer_mask[i, :size] = batch["input_ids"][i, where], 1
        for name, column in columns.items():
            column[i, :size] = batch[name][i, where].float()
    made = {"prompt_ids": prompts, "prompt_mask": prompt_mask, "completion_ids": answers, "completion_mask": answer_mask}
    names = {"reference": "ref_per_token_logps", "behaviour": "sampling_per_token_logps"}
    made |= {names[name]: columns[name] for name in names if name in columns}
    made["old_per_token_logps"] = columns["old" if "old" in columns else "behaviour"]
    return made | {"advantages": columns["advantage"], "num_items_in_batch": answer_mask.sum()}


def settings(trainer: Any, **told: Any) -> None:
    """Set a trainer's switches; what is not named stands at its default."""
    plain = {
        "loss_type": "grpo", "beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2, "importance_sampling_level": "token", "use_vllm": False,
        "_entropy_bonus_enabled": False, "use_adaptive_entropy": False, "entropy_coef": 0.0, "vllm_importance_sampling_correction": True,
    }  # fmt: skip
    trainer.args.delta, trainer.args.use_bias_correction_kl = told.pop("delta", None), told.pop("corrected", False)
    for name, value in {**plain, **told}.items():
        assert hasattr(trainer, name), f"TRL has no {name} any more"
        setattr(trainer, name, value)


def compare(objective: Any, trainer: Any, gradients_alone: bool = False, **told: Any) -> None:
    start = copy.deepcopy(TRAINED.module).requires_grad_(False)
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.mul_(1.02)
    objective = objective.bind(lambda: start)
    batch = objective.prepare(TRAINED.module, ours(), {})
    settings(trainer, **told)
    inputs = theirs(batch)
    if told.get("use_vllm"):
        apart = (inputs["old_per_token_logps"] - inputs["sampling_per_token_logps"]) * inputs["completion_mask"]
        inputs["importance_sampling_ratio"] = apart.exp().clamp(max=1.1)
    their_loss = trainer._compute_loss(trainer.model, inputs)
    our_loss, measures = objective(TRAINED.module.eval(), batch, {})
    if not gradients_alone:
        assert float(our_loss.detach()) == pytest.approx(float(their_loss.detach()), abs=2e-6)
    mine = torch.autograd.grad(our_loss, list(TRAINED.module.parameters()))
    other = torch.autograd.grad(their_loss, list(trainer.model.parameters()))
    scale = max(float(g.abs().max()) for g in other)
    assert scale > 1e-3
    assert all(float((a - b).abs().max()) <= 1e-4 * scale for a, b in zip(mine, other, strict=True))
    seen = trainer._metrics["eval"]
    if "token" in told.get("importance_sampling_level", "token") and objective.aggregate == "token_mean":
        assert float(measures["entropy"]) == pytest.approx(seen["entropy"][-1], abs=1e-5)
        if told.get("loss_type") != "cispo" and "delta" not in told:
            assert float(measures["clip_fraction"]) == pytest.approx(seen["clip_ratio/region_mean"][-1], abs=1e-6)


CLIPPING = {"epsilon_low": 0.1, "epsilon_high": 0.15}
BNPO = PolicyGradient(Group(), Behaviour(), stabiliser=Clip(0.1, 0.15), aggregate="token_mean")


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (Grpo(kl=0.0), {}),
        (Grpo(kl=0.4), {"beta": 0.4}),
        (Grpo(kl=0.0, denominator=Old("none")), {}),
        (PolicyGradient(Group(), Old("none"), stabiliser=Clip(0.1, 0.15), anchors=(Kl(0.4, corrected=True),)),
         {"loss_type": "bnpo", **CLIPPING, "beta": 0.4, "corrected": True}),
        (DrGrpo(clip=0.1), {"loss_type": "dr_grpo", "epsilon_low": 0.1, "epsilon_high": 0.1}),
        (DrGrpo(length=LIMIT, kl=0.3), {"loss_type": "dr_grpo", "beta": 0.3}),
        (Dapo(), {"loss_type": "dapo", "epsilon_high": 0.28}),
        (Dapo(0.1, 0.15), {"loss_type": "bnpo", **CLIPPING}),
        (Gspo(), {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}),
        (Gspo(0.5, 0.5), {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.5, "epsilon_high": 0.5}),
        (Dler(0.1, 0.15, dual=1.3, kl=0.0), {"loss_type": "bnpo", **CLIPPING, "delta": 1.3}),
        (PolicyGradient(Group(), Old(cap=1.1), stabiliser=Clip(0.1, 0.15)), {"loss_type": "bnpo", **CLIPPING, "use_vllm": True}),
        (PolicyGradient(stabiliser=Clip(0.1, 0.15), anchors=(Entropy(0.1), Kl(0.2))),
         {"loss_type": "bnpo", **CLIPPING, "_entropy_bonus_enabled": True, "entropy_coef": 0.1, "beta": 0.2}),
    ],
    ids=lambda one: str(one),
)  # fmt: skip
def test_losses_of_grpos_family(peers: dict[str, Any], objective: Any, told: dict[str, Any]) -> None:
    compare(objective, peers["grpo"], **told)


def test_cispos_gradient(peers: dict[str, Any]) -> None:
    compare(Cispo(cap=1.1), peers["grpo"], gradients_alone=True, loss_type="cispo", epsilon_high=1.1)


@pytest.mark.parametrize("clip", [0.05, 0.9])
def test_rloo(peers: dict[str, Any], clip: float) -> None:
    trainer, objective = peers["rloo"], Rloo(clip=clip, kl=0.0)
    batch = objective.prepare(TRAINED.module, ours(), {})
    rewards = torch.tensor(REWARDS).view(2, 3)
    advantages = (rewards - (rewards.sum(1, keepdim=True) - rewards) / 2).flatten()
    inputs = theirs(batch)
    inputs |= {"advantages": advantages, "old_logps": batch["behaviour"].sum(1)}
    trainer.epsilon_low = trainer.epsilon_high = clip
    their_loss = trainer._compute_loss(trainer.model, inputs)
    our_loss, measures = objective(TRAINED.module.eval(), batch, {})
    assert float(our_loss.detach()) == pytest.approx(float(their_loss.detach()), abs=2e-6)
    mine = torch.autograd.grad(our_loss, list(TRAINED.module.parameters()))
    other = torch.autograd.grad(their_loss, list(trainer.model.parameters()))
    scale = max(float(g.abs().max()) for g in other)
    assert scale > 1e-3 and all(float((a - b).abs().max()) <= 1e-4 * scale for a, b in zip(mine, other, strict=True))
    assert float(measures["clip_fraction"]) == pytest.approx(trainer._metrics["eval"]["clip_ratio/region_mean"][-1], abs=1e-6)
