"""The contracts of the policy gradient's parts. Each check makes its own rollouts, from a named stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from outlay.advantages.base import Advantage
from outlay.anchors.base import Anchor, Scored
from outlay.denominators.base import Denominator
from outlay.likelihoods.base import Likelihood
from outlay.rng import torch_generator
from outlay.sequences import answer_mask, judged_rows, shifted
from outlay.sources.base import IGNORED, Batch
from outlay.stabilisers.base import Stabiliser
from outlay.testing.common import global_generators_untouched, hold

_VOCABULARY = 11


def rollout_batch(seed: int = 0, groups: int = 3, samples: int = 4, width: int = 9) -> Batch:
    """Return made-up rollouts with every column that a part may ask for, in double precision; the second answer was not judged.

    Args:
        seed: of the stream that they are drawn from.
        groups: questions.
        samples: answers to each.
        width: longest prompt and answer together, in tokens, >= 4.
    """
    draw = torch_generator(seed, "contracts/rollouts")
    rows = groups * samples
    ids = torch.randint(1, _VOCABULARY, (rows, width), generator=draw)
    lengths = torch.randint(4, width + 1, (rows,), generator=draw)
    lengths[0] = width
    present = torch.arange(width)[None] < lengths[:, None]
    labels = torch.where(present, ids, IGNORED)
    labels[:, :2] = IGNORED
    answers = labels != IGNORED

    def column() -> torch.Tensor:
        return torch.where(answers, -0.1 - 3 * torch.rand(rows, width, generator=draw, dtype=torch.float64), 0.0)

    judged = torch.ones(rows, dtype=torch.bool)
    judged[1] = False
    return {
        "input_ids": torch.where(present, ids, 0),
        "attention_mask": present.long(),
        "labels": labels,
        "group": torch.arange(groups).repeat_interleave(samples),
        "reward": torch.randint(0, 4, (rows,), generator=draw).double() / 2,
        "judged": judged,
        "ended": lengths < width,
        "limit": torch.full((rows,), width - 2),
        "temperature": torch.ones(rows, dtype=torch.float64),
        "behaviour": column(),
        "old": column(),
        "reference": column(),
        "values": torch.where(answers, torch.randn(rows, width, generator=draw, dtype=torch.float64), 0.0),
        "greedy_reward": torch.rand(groups, generator=draw, dtype=torch.float64).repeat_interleave(samples),
    }


def check_advantage(advantage: Advantage) -> None:
    """Check the advantage seam: shapes, nothing outside judged answers, groups' order and padding without influence, shaping that counts.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    batch = rollout_batch()
    mask, shaping = answer_mask(batch), 0.1 * shifted(batch, "behaviour")
    with global_generators_untouched(type(advantage).__name__):
        found = advantage.advantages(dict(batch), mask, shaping)
    hold(found.shape == mask.shape and not found.requires_grad, "advantages are (n, T - 1) without gradient", f"found {tuple(found.shape)}")
    hold(bool(found.isfinite().all()), "advantages are finite", f"found {found}")
    own = mask & judged_rows(batch)[:, None]
    hold(not found[~own].any(), "advantages are 0 outside answers and where nobody could judge", f"found {found[~own]}")
    hold(bool(found.any()), "some answer has an advantage", "all are 0")
    _hold_near(advantage.advantages(dict(batch), mask, shaping), found, "the same batch gives the same advantages")
    for unknown in (1e6, torch.nan):
        other = {**batch, "reward": torch.where(batch["judged"], batch["reward"], unknown)}
        _hold_near(advantage.advantages(other, mask, shaping), found, "the reward of an answer that was not judged has no influence")
    wide = {
        name: torch.nn.functional.pad(c, (0, 2), value=IGNORED if name == "labels" else 0) if c.dim() == 2 else c
        for name, c in batch.items()
    }
    longer = advantage.advantages(wide, answer_mask(wide), torch.nn.functional.pad(shaping, (0, 2), value=7.0))
    _hold_near(longer[:, :-2], found, "padding has no influence")
    order = torch.arange(len(mask)).view(3, 4).flip(0).flatten()
    turned = advantage.advantages({name: column[order] for name, column in batch.items()}, mask[order], shaping[order])
    _hold_near(turned, found[order], "the order of groups has no influence")
    equal = advantage.advantages({**batch, "group": batch["group"] * 7 + 3}, mask, shaping)
    _hold_near(equal, found, "groups are told apart by their numbers, whatever these are")


def check_denominator(denominator: Denominator) -> None:
    """Check the denominator seam: log probabilities and corrections without gradient, of the right shape, finite however far apart they are.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    batch = rollout_batch()
    current = shifted(rollout_batch(1), "behaviour").clone().requires_grad_()
    found = denominator.log_probs(current, batch)
    hold(
        found.shape == current.shape and not found.requires_grad, "log pi_ref is (n, T - 1) without gradient", f"found {tuple(found.shape)}"
    )
    hold(bool((found <= 0).all()), "log pi_ref is the logarithm of a probability", f"found {found.max()}")
    far = {**batch, "old": (batch["old"] * 1e4).float(), "behaviour": batch["behaviour"].float()}
    for case in (batch, far, {**far, "old": far["behaviour"], "behaviour": far["old"]}):
        weights = denominator.correction(case)
        if weights is None:
            continue
        right = weights.shape == current.shape and not weights.requires_grad
        hold(right, "corrections are (n, T - 1) without gradient", f"found {tuple(weights.shape)}")
        hold(bool((weights.isfinite() & (weights >= 0)).all()), "corrections are finite and not negative", f"found {weights}")
    same = denominator.correction({**batch, "old": batch["behaviour"]})
    hold(same is None or bool((same == 1).all()), "nothing is corrected where trainer and sampler agree", f"found {same}")


def check_likelihood(likelihood: Likelihood) -> None:
    """Check the likelihood seam: 1 where nothing changed, larger where an answer became likelier, with gradient, finite in single precision.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    batch = rollout_batch()
    mask, before = answer_mask(batch), shifted(batch, "behaviour")
    current = before.clone().requires_grad_()
    found = likelihood.ratio(current, before, mask)
    hold(found.shape == mask.shape, "the ratio is (n, T - 1)", f"found {tuple(found.shape)}")
    hold(bool((found[mask] == 1).all()), "the ratio is 1 where nothing changed", f"found {found[mask]}")
    (gradient,) = torch.autograd.grad(found[mask].sum(), current)
    hold(bool((gradient[mask] > 0).all()), "every token of an answer carries gradient", f"found {gradient[mask]}")
    hold(not gradient[~mask].any(), "nothing outside the answers carries gradient", f"found {gradient[~mask]}")
    likelier = likelihood.ratio(before + 0.1 * mask, before, mask)
    hold(bool((likelier[mask] > 1).all()), "the ratio grows with the likelihood", f"found {likelier[mask]}")
    for far in (-1e4, 1e4):
        moved = (before + far * mask).float().requires_grad_()
        ratio = likelihood.ratio(moved, before.float(), mask)
        (gradient,) = torch.autograd.grad(ratio[mask].sum(), moved)
        hold(
            bool(ratio.isfinite().all() and gradient.isfinite().all()), "ratios and gradients stay finite", f"log ratios of {far}: {ratio}"
        )


def check_stabiliser(stabiliser: Stabiliser) -> None:
    """Check the stabiliser seam: on policy the gradient is A, nothing moves without an advantage or against its sign, ``active`` tells which tokens
    move, and all is finite for ratios from e^-20 to e^20.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    ratios = torch.cat([torch.linspace(-20, 20, 161, dtype=torch.float64).exp(), torch.linspace(0.05, 3.05, 61, dtype=torch.float64)])
    ratio = ratios.repeat(3).requires_grad_()
    advantage = torch.tensor([1.5, 0.0, -0.5], dtype=torch.float64).repeat_interleave(len(ratios))
    found = stabiliser.surrogate(ratio, advantage)
    hold(found.shape == ratio.shape, "what is maximised is one number a token", f"found {tuple(found.shape)}")
    (gradient,) = torch.autograd.grad(found.sum(), ratio)
    hold(bool(found.isfinite().all() and gradient.isfinite().all()), "values and gradients are finite", f"found {found}")
    hold(not gradient[advantage == 0].any(), "a token without advantage does not move", f"found {gradient[advantage == 0]}")
    hold(bool((gradient * advantage >= 0).all()), "no token moves against its advantage", "some gradient has the other sign")
    moves, active = gradient != 0, stabiliser.active(ratio.detach(), advantage)
    hold(active.dtype == torch.bool, "active is a truth value a token", f"found {active.dtype}")
    wrong = (moves != active) & (advantage != 0)
    hold(not bool(wrong.any()), "active says which tokens move", f"not so for ratios {ratio[wrong].tolist()[:5]}")
    one = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (at_one,) = torch.autograd.grad(stabiliser.surrogate(one, torch.tensor([1.5, -0.5], dtype=torch.float64)).sum(), one)
    allowed = (at_one == torch.tensor([1.5, -0.5])) | (at_one == 0)
    hold(
        bool(allowed.all()) and float(at_one[0]) == 1.5,
        "on policy the gradient is the advantage (or 0 for a bad answer)",
        f"found {at_one}",
    )


def check_anchor(anchor: Anchor) -> None:
    """Check the anchor seam: one knob that scales the penalty, (n, T - 1), nothing outside the answers, a gradient unless it is in the reward.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    hold(len(anchor.knobs) == 1, "an anchor has one knob, its coefficient", f"found {dict(anchor.knobs)}")
    ((name, default),) = anchor.knobs.items()
    scored = _scored()
    ready = anchor.prepare(scored.batch, scored.mask)
    hold(set(scored.batch) <= set(ready), "preparing adds columns and takes none away", f"found {sorted(ready)}")
    lengths = {column: len(value) for column, value in ready.items()}
    hold(set(lengths.values()) == {len(scored.mask)}, "every column has one entry a row, so that a batch can be cut", f"found {lengths}")
    scored = replace(scored, batch=ready)
    penalty = anchor.penalty(scored, {})
    hold(penalty.shape == scored.mask.shape, "a penalty is (n, T - 1)", f"found {tuple(penalty.shape)}")
    hold(
        bool(penalty.isfinite().all()) and not penalty[~scored.mask].any(),
        "penalties are finite, and 0 outside the answers",
        f"found {penalty}",
    )
    hold(bool(penalty.any()) or default == 0, "some token is penalised", "none is")
    _hold_near(anchor.penalty(scored, {name: default}), penalty, "a knob that is not given stands at its default")
    _hold_near(anchor.penalty(scored, {name: 3 * default}), 3 * penalty, "the knob scales the penalty")
    hold(
        not anchor.penalty(scored, {name: 0.0}).any(),
        "with the knob at 0 there is no penalty",
        f"found {anchor.penalty(scored, {name: 0.0})}",
    )
    if not anchor.in_reward and default:
        (gradient,) = torch.autograd.grad(penalty.sum(), scored.logits)
        hold(bool(gradient.any() and gradient.isfinite().all()), "a penalty in the loss has a finite gradient", f"found {gradient}")
    _check_measures(anchor.measures(scored), scored)


def _check_measures(measures: Mapping[str, torch.Tensor], scored: Scored) -> None:
    for name, value in measures.items():
        hold(value.shape == scored.mask.shape, "measures are (n, T - 1), to be averaged over tokens", f"{name} is {tuple(value.shape)}")


def _scored() -> Scored:
    batch, draw = rollout_batch(), torch_generator(2, "contracts/rollouts")
    mask = answer_mask(batch)
    logits = (2 * torch.randn(int(mask.sum()), _VOCABULARY, generator=draw, dtype=torch.float64)).requires_grad_()
    wanted = batch["labels"][:, 1:][mask]
    likely = logits.log_softmax(-1).gather(1, wanted[:, None]).squeeze(1)
    log_probs = likely.new_zeros(mask.shape).masked_scatter(mask, likely)
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(len(mask) // 2)[:, None]
    return Scored(batch, logits, log_probs, mask, sign * mask)


def _hold_near(one: torch.Tensor, other: torch.Tensor, rule: str) -> None:
    error = float((one - other).detach().abs().max())
    hold(one.shape == other.shape and error <= 1e-9, rule, f"off by {error:.3g}")
