"""Measuring on demand: exact values, nothing unless asked, and a resumed run measures the same."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from small_runs import At, Poisoned, child, digits, language, lines, plain_stage, wait, weights, with_objective
from test_run import Watching

import outlay
from outlay.errors import InputError
from outlay.knob import Knob
from outlay.optim import AdamW, Sgd
from outlay.record import Record
from outlay.train import Recipe, Stage
from outlay.train.assembly import Assembly, StageRun, assemble, open_stage
from outlay.train.snapshots import restore, snapshot
from outlay.train.update import set_knobs, update

BOTH = ("gradient_l1", "descent_alignment")


def opened(optimizer: Any, knobs: dict[str, float], measure: tuple[str, ...] = BOTH, micro_batch: int = 10**6) -> tuple[Assembly, StageRun]:
    recipe = digits()
    values = {name: Knob(value) for name, value in knobs.items()}
    stage = dataclasses.replace(recipe.stages[0], optimizer=optimizer, knobs=values, measure=measure)
    assembly = assemble(dataclasses.replace(recipe, stages=(stage,)))
    return assembly, open_stage(assembly, 0, {}, micro_batch)


def flat(assembly: Assembly) -> torch.Tensor:
    return torch.cat([p.detach().flatten().double() for _, p in assembly.parameters()])


def gradient(assembly: Assembly, stage_run: StageRun, batch: Any) -> torch.Tensor:
    """The gradient of one piece, without dropout masks in the way: the model is put into evaluation mode."""
    loss, _ = stage_run.objective(assembly.plain_module, batch, stage_run.objective.knobs)
    grads = torch.autograd.grad(loss, [p for _, p in assembly.parameters()])
    return torch.cat([grad.flatten().double() for grad in grads])


def walked(optimizer: Any, steps: int, **knobs: float) -> tuple[list[dict[str, float]], list[torch.Tensor], list[torch.Tensor]]:
    """What was measured at every step, and the gradients and weights before each."""
    assembly, stage_run = opened(optimizer, knobs)
    assembly.plain_module.eval()
    seen, gradients, places = [], [], []
    for step in range(1, steps + 1):
        batch = stage_run.stream.draw(16)
        places.append(flat(assembly))
        gradients.append(gradient(assembly, stage_run, batch))
        seen.append(update(assembly, stage_run, batch, set_knobs(assembly, stage_run, 0.0), step).metrics)
        stage_run.stream.advance(16)
    return seen, gradients, [*places, flat(assembly)]


def test_the_l1_norm_is_that_of_the_gradient_before_clipping() -> None:
    clipped, gradients, _ = walked(Sgd(), 2, lr=0.1, clip=1e-3)
    for measured, exact in zip(clipped, gradients, strict=True):
        assert measured["gradient_l1"] == pytest.approx(float(exact.abs().sum()), rel=1e-5)


def test_with_plain_sgd_the_alignment_is_that_of_two_gradients() -> None:
    seen, gradients, _ = walked(Sgd(), 4, lr=0.2, momentum=0.0)
    assert "descent_alignment" not in seen[0]
    for t in (1, 2, 3):
        assert seen[t]["descent_alignment"] == pytest.approx(float(gradients[t] @ gradients[t - 1]), rel=1e-3)


def test_the_alignment_is_with_the_direction_of_the_update_at_its_own_rate() -> None:
    seen, gradients, places = walked(AdamW(), 3, lr=0.01, weight_decay=0.1)
    for t in (1, 2):
        assert seen[t]["descent_alignment"] == pytest.approx(float(gradients[t] @ (places[t - 1] - places[t])) / 0.01, rel=1e-3)


def test_clipping_bounds_the_update_as_it_does_without_measuring() -> None:
    places = []
    for measure in ((), BOTH):
        assembly, stage_run = opened(Sgd(), {"lr": 1.0, "momentum": 0.0, "clip": 0.01}, measure, micro_batch=5)
        before = flat(assembly)
        update(assembly, stage_run, stage_run.stream.draw(16), set_knobs(assembly, stage_run, 0.0), 1)
        places.append(flat(assembly))
        assert float((places[-1] - before).norm()) == pytest.approx(0.01, rel=1e-4)
    assert torch.equal(*places)


def test_an_update_at_rate_0_has_no_direction() -> None:
    seen, _, _ = walked(Sgd(), 3, lr=0.0)
    assert all("descent_alignment" not in measured and measured["gradient_l1"] > 0 for measured in seen)


def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    for measure, names, tensors in (((), set(), 0), (("gradient_l1",), {"gradient_l1"}, 0), (BOTH, set(BOTH), 4)):
        assembly, stage_run = opened(Sgd(), {"lr": 0.1}, measure)
        outcomes = [update(assembly, stage_run, stage_run.stream.draw(16), set_knobs(assembly, stage_run, 0.0), step) for step in (1, 2)]
        assert set(outcomes[-1].metrics) & set(BOTH) == names
        assert len(stage_run.measuring.direction) == len(snapshot(assembly, stage_run).tensors["direction"]) == tensors


def test_a_snapshot_holds_the_direction() -> None:
    assembly, stage_run = opened(Sgd(), {"lr": 0.1})
    step = lambda number: update(assembly, stage_run, stage_run.stream.draw(16), set_knobs(assembly, stage_run, 0.0), number)  # noqa: E731
    step(1)
    saved = snapshot(assembly, stage_run)
    first = [step(2).metrics, step(3).metrics]
    restore(assembly, stage_run, saved)
    assert [step(2).metrics, step(3).metrics] == first


def test_a_skipped_step_is_measured_by_finite_numbers_alone(tmp_path: Path) -> None:
    recipe = with_objective(digits(budget="6 steps"), Poisoned(), poison=Knob(1.0, At((0.5,))), lr=0.003)
    stage = dataclasses.replace(recipe.stages[0], measure=BOTH)
    outlay.run(dataclasses.replace(recipe, stages=(stage,)), tmp_path / "run")
    names = [set(line["metrics"]) & set(BOTH) for line in lines(tmp_path / "run", "step")]
    assert names == [{"gradient_l1"}, set(BOTH), set(BOTH), set(), set(BOTH), set(BOTH)]


# ---- who asks -----------------------------------------------------------------------------------------------------------------------


@dataclass
class Asking:
    """A controller that asks for a measure and follows it."""

    needs: ClassVar[tuple[str, ...]] = ("descent_alignment",)

    _seen: list[float] = field(default_factory=list, init=False, compare=False)

    def value(self, progress: float) -> float:
        return 1.0 + 0.5 * math.sin(sum(self._seen))

    def observe(self, record: Record) -> None:
        if record.kind == "step" and (alignment := record.quantity("descent_alignment")) is not None:
            self._seen.append(alignment)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": list(self._seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seen = list(state["seen"])


def asking() -> Recipe:
    recipe = digits(budget="20 steps", checkpoints={"every_steps": 5})
    stage = dataclasses.replace(recipe.stages[0], knobs={"lr": Knob(0.003, Asking()), "clip": Knob(1.0)})
    return dataclasses.replace(recipe, stages=(stage,))


def test_a_controller_gets_what_it_needs_and_a_killed_run_measures_the_same(tmp_path: Path) -> None:
    outlay.run(asking(), tmp_path / "whole")
    whole = lines(tmp_path / "whole", "step")
    assert ["descent_alignment" in line["metrics"] for line in whole] == [False] + [True] * 19
    assert not any("gradient_l1" in line["metrics"] for line in whole) and len({line["knobs"]["lr"] for line in whole}) > 10

    folder = tmp_path / "killed"
    die = lambda: outlay.run(asking(), folder, display=Watching(13, lambda: os.kill(os.getpid(), signal.SIGKILL)))  # noqa: E731
    assert wait(child(die)) == -signal.SIGKILL
    outlay.resume(folder, recipe=asking())
    again = {line["step"]: line for line in lines(folder, "step")}
    assert [again[line["step"]]["metrics"] for line in whole] == [line["metrics"] for line in whole]
    assert weights(folder) == weights(tmp_path / "whole")


def test_a_recipe_asks_by_name() -> None:
    recipe = outlay.load_recipe({**_plain(), "stages": [plain_stage(measure=["gradient_l1"])]})
    assert recipe.stages[0].measure == ("gradient_l1",) and recipe.stages[0].measured() == {"gradient_l1"}
    assert language().stages[0].measured() == frozenset()


def _plain() -> dict[str, Any]:
    return {"budget": "3 steps", "model": {"mlp": {"inputs": 64, "classes": 10}}}


class Greedy(Asking):
    needs: ClassVar[tuple[str, ...]] = ("hessian",)


def test_what_cannot_be_measured_is_refused() -> None:
    accepted = "which no step can; accepted: gradient_l1, descent_alignment"
    with pytest.raises(InputError, match=rf"stages\[0\].measure: asks to measure 'l1', {accepted}"):
        outlay.load_recipe({**_plain(), "stages": [plain_stage(measure=["l1"])]})
    with pytest.raises(InputError, match=f"knobs.lr: asks to measure 'hessian', {accepted}"):
        Stage(digits().stages[0].source, knobs={"lr": Knob(0.1, Greedy())})
