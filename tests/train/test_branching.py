"""Branches: a run looks ahead and goes back bit by bit, everything it used stays spent, and kills, stops and replays change nothing."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from small_runs import At, Poisoned, audit, child, examined, lines, paced, plain_stage, result_of, wait, weights, with_objective
from test_run import Watching, interrupt
from test_run_kills import dies_before

import outlay
from outlay.branch import Branch, Landing
from outlay.controllers.base import Brancher
from outlay.errors import InputError
from outlay.knob import Knob
from outlay.record import Record
from outlay.reporting import read_run
from outlay.reporting.html import log
from outlay.schedules import Linear, Product
from outlay.testing import FakeClock, check_controller, record
from outlay.train import Recipe, Stage, branching, update
from outlay.train.checkpoint import checkpoints, load_checkpoint
from outlay.train.journal import effective, read_journal


@dataclass
class Asks:
    """A constant that asks for branches, each from a certain progress on, and notes what it is told."""

    plan: tuple[tuple[float, Branch], ...] = ()
    level: float = 1.0
    _told: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False, compare=False)
    _seen: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    def value(self, progress: float) -> float:
        return self.level

    def observe(self, record: Record) -> None:
        if record.kind == "step":
            self._seen.append(record.step)

    def next_branch(self, progress: float) -> Branch | None:
        due = self.plan[len(self._told) :]
        return due[0][1] if due and progress >= due[0][0] - 1e-9 else None

    def landed(self, branch: Branch, landing: Landing) -> None:
        steps = [(step.step, step.loss, step.outcome) for step in landing.records]
        told = {"name": branch.name, "end": landing.end, "began": landing.began, "ended": landing.ended, "metrics": dict(landing.metrics)}
        self._told.append(told | {"steps": steps})

    def state_dict(self) -> dict[str, Any]:
        # through JSON lists and tuples are the same
        return {"told": [dict(told) | {"steps": [list(step) for step in told["steps"]]} for told in self._told], "seen": list(self._seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._told = [dict(told) | {"steps": [tuple(step) for step in told["steps"]]} for told in state["told"]]
        self._seen = list(state["seen"])


@dataclass
class Counts:
    """A constant that counts the records it observes, and moves a little with them."""

    _count: int = field(default=0, init=False, repr=False, compare=False)

    def value(self, progress: float) -> float:
        return 1.0 + 0.01 * self._count

    def observe(self, record: Record) -> None:
        self._count += record.kind == "step"

    def state_dict(self) -> dict[str, Any]:
        return {"count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._count = state["count"]


def asking(*plan: tuple[float, Branch], recipe: Recipe | None = None, **changes: Any) -> Recipe:
    """60 steps at a constant learning rate, with dropout; ``plan`` says from which progress on which branch is asked for."""
    recipe = recipe or examined(**changes)
    stages = tuple(dataclasses.replace(stage, knobs={"lr": Knob(0.003, Asks(plan)), "clip": Knob(1.0)}) for stage in recipe.stages)
    return dataclasses.replace(recipe, stages=stages)


def last_state(folder: Path, part: int = 0) -> dict[str, Any]:
    """The state of a controller in the last checkpoint."""
    plain = load_checkpoint(checkpoints(folder / "checkpoints")[-1]).plain
    state: dict[str, Any] = plain["controllers"][part]
    return state


def told(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = last_state(folder)["told"]
    return found


def at(folder: Path, what: str) -> list[dict[str, Any]]:
    return [line for line in lines(folder, "branch") if line["what"] == what]


# ---- there and back -----------------------------------------------------------------------------------------------------------------


def test_after_a_branch_the_run_is_where_it_was(tmp_path: Path) -> None:
    """With dropout and evaluations: 30 steps, 10 aside, 20 more, give the weights of 50 steps. What was spent stays spent."""
    aside = Branch("ahead", Linear(), steps=10)
    result = outlay.run(asking((0.5, aside)), tmp_path / "branched")
    outlay.run(asking(budget="50 steps", evaluate={}), tmp_path / "straight")
    assert weights(tmp_path / "branched") == weights(tmp_path / "straight") and audit(tmp_path / "branched") == []
    assert result.ended_by == "steps" and result.steps == 60 and result.accounts["train"]["steps"] == 50
    assert result.accounts["probe"]["steps"] == 10 and result.accounts["probe"]["examples"] == 320
    assert result.accounts["probe"]["flops"] == pytest.approx(result.accounts["train"]["flops"] / 5)
    ahead = lines(tmp_path / "branched", "branch_step")
    assert [line["step"] for line in ahead] == list(range(31, 41)) and {line["name"] for line in ahead} == {"ahead"}
    assert [line["knobs"]["lr"] for line in ahead] == [pytest.approx(0.003 * (1 - k / 10)) for k in range(10)]
    assert [line["progress"] for line in ahead] == [pytest.approx(k / 60) for k in range(30, 40)]
    trunk = lines(tmp_path / "branched", "step")
    assert [line["step"] for line in trunk] == [*range(1, 31), *range(41, 61)] and {line["knobs"]["lr"] for line in trunk} == {0.003}
    straight = lines(tmp_path / "straight", "step")
    assert [line["loss"] for line in trunk] == [line["loss"] for line in straight]


def test_the_controller_that_asked_is_told_and_the_others_go_back(tmp_path: Path) -> None:
    recipe = asking((0.5, Branch("ahead", steps=10)))
    stage = dataclasses.replace(recipe.stages[0], knobs={**recipe.stages[0].knobs, "weight_decay": Knob(0.1, Counts())})
    outlay.run(dataclasses.replace(recipe, stages=(stage,)), tmp_path / "run")
    (heard,) = told(tmp_path / "run")
    ahead = lines(tmp_path / "run", "branch_step")
    assert heard["steps"] == [[line["step"], line["loss"], "ok"] for line in ahead]
    assert (heard["end"], heard["began"], heard["ended"]) == ("whole", 0.5, pytest.approx(40 / 60)) and heard["metrics"] == {}
    assert last_state(tmp_path / "run")["seen"] == [line["step"] for line in lines(tmp_path / "run", "step")]
    # on the branch the other one went on, and came back
    assert [line["knobs"]["weight_decay"] for line in ahead] == [pytest.approx(0.1 * (1.30 + 0.01 * k)) for k in range(10)]
    assert last_state(tmp_path / "run", 1) == {"count": 50}
    assert lines(tmp_path / "run", "step")[30]["knobs"]["weight_decay"] == pytest.approx(0.13)


@pytest.mark.parametrize("rewind", [True, False])
def test_the_data_goes_on_or_back_as_the_branch_says(rewind: bool, tmp_path: Path) -> None:
    outlay.run(asking((0.5, Branch("ahead", steps=10, rewind_data=rewind))), tmp_path / "run")
    plain = load_checkpoint(checkpoints(tmp_path / "run" / "checkpoints")[-1]).plain
    assert plain["cursor"]["cursor"] == 32 * (50 if rewind else 60) and plain["aside"] == 10


def test_a_branch_may_be_kept(tmp_path: Path) -> None:
    outlay.run(asking((0.5, Branch("on", steps=10, keep=True))), tmp_path / "kept")
    outlay.run(asking(), tmp_path / "straight")
    assert weights(tmp_path / "kept") == weights(tmp_path / "straight")
    assert told(tmp_path / "kept")[0]["end"] == "whole" and result_of(tmp_path / "kept")["accounts"]["probe"]["steps"] == 10


def test_a_share_of_the_budget_is_a_length_too(tmp_path: Path) -> None:
    branch = Branch("ahead", Linear(), share=0.2, account="look")
    result = outlay.run(asking((0.25, branch)), tmp_path / "run")
    ahead = lines(tmp_path / "run", "branch_step")
    assert [line["step"] for line in ahead] == list(range(16, 28)) and result.accounts["look"]["steps"] == 12
    assert [line["knobs"]["lr"] for line in ahead] == [pytest.approx(0.003 * (1 - k / 12)) for k in range(12)]


def test_several_in_a_row_start_from_the_same_place(tmp_path: Path) -> None:
    twins = [(0.5, Branch(name, steps=5)) for name in ("one", "two")]
    outlay.run(asking(*twins), tmp_path / "run")
    ahead = lines(tmp_path / "run", "branch_step")
    assert [line["loss"] for line in ahead[:5]] == [line["loss"] for line in ahead[5:]] and [line["branch"] for line in ahead] == [
        1
    ] * 5 + [2] * 5
    assert [line["step"] for line in ahead] == list(range(31, 41))


# ---- evaluated and saved ------------------------------------------------------------------------------------------------------------


def test_a_branch_is_evaluated_and_saved_at_its_end(tmp_path: Path) -> None:
    branch = Branch("budget-40", steps=10, evaluate=True, save=True, watch=False)
    outlay.run(asking((0.5, branch)), tmp_path / "run")
    outlay.run(asking(budget="40 steps"), tmp_path / "short")
    (landed,) = at(tmp_path / "run", "landed")
    assert landed["path"] == "branches/budget-40" and landed["metrics"] == result_of(tmp_path / "short")["metrics"]
    saved = tmp_path / "run" / "branches" / "budget-40"
    assert (saved / "model.safetensors").read_bytes() == weights(tmp_path / "short")
    assert sorted(path.name for path in saved.parent.iterdir()) == ["budget-40"]
    (heard,) = told(tmp_path / "run")
    assert heard["metrics"] == landed["metrics"] and heard["steps"] == []  # it does not watch
    assert weights(tmp_path / "run") != weights(tmp_path / "short") and audit(tmp_path / "run") == []
    assert [line["when"] for line in lines(tmp_path / "run", "evaluation")] == ["start", "during", "during", "during", "end"]
    # the report lists it, and no curve shows its steps
    run = read_run(tmp_path / "run")
    assert [line["what"] for line in log(run) if line["kind"] == "branch"] == ["budget-40 after 10 steps"]
    assert len(run.steps) == 50 and run.accounts["probe"]["steps"] == 10 and run.notes == ()


def test_a_branch_of_a_schedule_free_run_is_seen_with_its_averages(tmp_path: Path) -> None:
    """What is measured and saved is what a run that ends there exports, and the trunk goes on from the weights that it is trained at."""
    pytest.importorskip("pytorch_optimizer")
    free = {"stages": [plain_stage(optimizer="schedule_free")]}
    branch = Branch("budget-40", steps=10, evaluate=True, save=True)
    outlay.run(asking((0.5, branch), **free), tmp_path / "run")
    outlay.run(asking(budget="40 steps", **free), tmp_path / "short")
    (landed,) = at(tmp_path / "run", "landed")
    assert landed["metrics"] == result_of(tmp_path / "short")["metrics"]
    assert (tmp_path / "run" / "branches" / "budget-40" / "model.safetensors").read_bytes() == weights(tmp_path / "short")
    outlay.run(asking(budget="50 steps", **free), tmp_path / "straight")
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")


def test_an_adapter_is_saved_merged_and_trained_on_apart(tmp_path: Path) -> None:
    from small_runs import language

    branch = Branch("ahead", steps=2, save=True)
    recipe = asking((0.5, branch), recipe=language(budget="8 steps", adapter={"lora": {"rank": 2}}, checkpoints={"every_steps": 2}))
    outlay.run(recipe, tmp_path / "run")
    straight = language(budget="6 steps", adapter={"lora": {"rank": 2}})
    outlay.run(asking(recipe=straight), tmp_path / "straight")
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")
    assert (tmp_path / "run" / "branches" / "ahead" / "model.safetensors").read_bytes() == weights(tmp_path / "straight")


# ---- what the budget bears ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "leaves", "end"), [(20, 10, "whole"), (30, 0, "whole"), (31, 0, "refused"), (20, 11, "refused")])
def test_a_branch_that_the_budget_does_not_bear_is_refused(steps: int, leaves: float, end: str, tmp_path: Path) -> None:
    result = outlay.run(asking((0.5, Branch("ahead", steps=steps, leaves=leaves))), tmp_path / "run")
    assert [heard["end"] for heard in told(tmp_path / "run")] == [end] and result.steps == 60
    assert result.accounts.get("probe", {}).get("steps", 0) == (steps if end == "whole" else 0)
    assert [line["name"] for line in at(tmp_path / "run", "refused")] == (["ahead"] if end == "refused" else [])


def test_its_evaluation_counts(tmp_path: Path) -> None:
    """2000 examples: 64 kept for the end. After 31 steps of 32, 944 are left: a branch of 29 steps and nothing else, or 27 and an evaluation."""
    for steps, evaluate, end in ((29, False, "whole"), (29, True, "refused"), (27, True, "whole"), (28, True, "refused")):
        folder = tmp_path / f"{steps}-{evaluate}"
        branch = Branch("ahead", steps=steps, evaluate=evaluate)
        outlay.run(asking((992 / 1936, branch), budget="2000 examples", evaluate={**examined_plain(), "start": False}), folder)
        (heard,) = told(folder)
        assert (heard["end"], bool(heard["metrics"])) == (end, end == "whole" and evaluate), (steps, evaluate)
        assert audit(folder) == []


def examined_plain() -> dict[str, Any]:
    from small_runs import EXAM

    return {"exams": [EXAM]}


def test_a_branch_that_takes_longer_than_forecast_is_cut_and_put_back(tmp_path: Path) -> None:
    clock = FakeClock()
    recipe = timed(clock, (0.5, Branch("ahead", steps=20, evaluate=True, save=True)))
    slow = Watching(45, lambda: clock.advance(1.5))
    outlay.run(recipe, tmp_path / "run", clock=clock, display=slow)
    (landed,) = at(tmp_path / "run", "landed")
    assert landed["end"] == "cut" and 0 < landed["steps"] < 20 and landed["metrics"] == {} and landed["path"] is None
    assert clock.now <= 6.0 and audit(tmp_path / "run") == [] and not (tmp_path / "run" / "branches").exists()
    (heard,) = told(tmp_path / "run")
    assert heard["end"] == "cut" and len(heard["steps"]) == landed["steps"]
    begun = at(tmp_path / "run", "begun")[0]["step"]
    outlay.run(asking(budget=f"{begun} steps", evaluate={}), tmp_path / "straight")
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")
    repeat(tmp_path / "run", timed(FakeClock(), (0.5, Branch("ahead", steps=20, evaluate=True, save=True))))


def test_a_branch_whose_loss_is_not_finite_ends_there(tmp_path: Path) -> None:
    def spoilt(*plan: tuple[float, Branch], budget: str = "60 steps") -> Recipe:
        recipe = with_objective(examined(budget=budget), Poisoned())
        knobs = {"lr": Knob(0.003), "clip": Knob(1.0), "poison": Knob(1.0, Asks(plan, level=0.0))}
        return dataclasses.replace(recipe, stages=(dataclasses.replace(recipe.stages[0], knobs=knobs),))

    branch = Branch("ahead", At((0.4,)), steps=10, keep=True, save=True)
    result = outlay.run(spoilt((0.5, branch)), tmp_path / "run")
    outlay.run(spoilt(budget="55 steps"), tmp_path / "straight")
    assert weights(tmp_path / "run") == weights(tmp_path / "straight") and result.accounts["probe"]["steps"] == 5
    (heard,) = told(tmp_path / "run")
    assert heard["end"] == "diverged" and [outcome for _, _, outcome in heard["steps"]] == ["ok"] * 4 + ["skipped"]
    assert not (tmp_path / "run" / "branches").exists() and result.exit_code == 0


# ---- rolled back --------------------------------------------------------------------------------------------------------------------


def test_rolling_back_never_leads_onto_a_branch(tmp_path: Path) -> None:
    """The newest checkpoint, of step 40, was taken on the branch; the first step after it breaks, and the fork's weights are gone on with."""
    recipe = with_objective(examined(budget="60 steps", health={"nonfinite": "roll_back"}), Poisoned())
    knobs = {"lr": Knob(0.003, Asks(((0.5, Branch("ahead", steps=12)),))), "poison": Knob(1.0, At((42 / 60,)))}
    recipe = dataclasses.replace(recipe, stages=(dataclasses.replace(recipe.stages[0], knobs=knobs),))
    outlay.run(recipe, tmp_path / "run")
    saved = [(line["step"], line.get("branch")) for line in lines(tmp_path / "run", "checkpoint")]
    assert saved[3:5] == [(30, None), (40, 1)]
    assert [line["what"] for line in lines(tmp_path / "run", "decision")][1:3] == [
        "step 43 skipped",
        "rolled back to the weights of step 40",
    ]
    assert [heard["end"] for heard in told(tmp_path / "run")] == ["whole"] and len(at(tmp_path / "run", "begun")) == 1
    assert len(lines(tmp_path / "run", "step")) == 48 and result_of(tmp_path / "run")["steps"] == 60


# ---- killed and stopped -------------------------------------------------------------------------------------------------------------


def branched() -> Recipe:
    """30 steps, 13 aside (evaluated and saved), 10 more, 7 aside with other data."""
    first, second = Branch("first", Linear(), steps=13, evaluate=True, save=True), Branch("second", steps=7, rewind_data=False)
    return asking((0.5, first), (53 / 60, second))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "run"
    outlay.run(branched(), folder)
    return folder


def on_step(number: int) -> Callable[[], None]:
    """Die in the update that is ``number``-th on its way; the branches share numbers with what comes after them."""
    calls: list[int] = []

    def when(seed: int, name: str, counter: int) -> bool:
        calls.append(counter // 4096)
        return len(calls) == number

    return lambda: dies_before(update, "seeded", when)


#: instant -> (how to die there, step from which the run is resumed, steps that are lost)
INSTANTS: dict[str, tuple[Callable[[], None], int, int]] = {
    "before the first branch is remembered": (lambda: dies_before(branching, "snapshot"), 30, 0),
    "on the first branch, before a checkpoint on it": (on_step(36), 30, 5),
    "on the first branch, after a checkpoint on it": (on_step(42), 40, 1),
    "while the branch is evaluated": (lambda: dies_before(branching, "sit"), 40, 3),
    "while the branch is saved": (lambda: dies_before(branching, "export"), 40, 3),
    "before the first branch is put back": (lambda: dies_before(branching, "_put_back"), 40, 3),
    "just after it": (on_step(45), 40, 4),
    "after a checkpoint of the trunk": (on_step(53), 50, 2),
    "on the second branch": (on_step(59), 50, 8),
    "at the end of the second branch": (lambda: dies_before(branching, "_put_back", lambda *a: a[2].number == 2), 50, 10),
}


@pytest.mark.parametrize("instant", INSTANTS)
def test_a_run_killed_on_a_branch_ends_as_if_it_had_not_been(instant: str, reference: Path, tmp_path: Path) -> None:
    die, step, lost = INSTANTS[instant]
    folder = tmp_path / "run"

    def work() -> None:
        die()
        outlay.run(branched(), folder)

    assert wait(child(work)) == -signal.SIGKILL
    result = outlay.resume(folder, recipe=branched())
    assert [line["from_step"] for line in lines(folder, "resume")] == [step] and result.lost.get("steps", 0) == lost
    same(folder, reference)


def same(folder: Path, reference: Path) -> None:
    mine, theirs = result_of(folder), result_of(reference)
    assert weights(folder) == weights(reference) and last_state(folder) == last_state(reference)
    for key in ("metrics", "steps", "ended_by", "budget"):
        assert mine[key] == theirs[key], key
    assert mine["accounts"]["probe"]["steps"] == theirs["accounts"]["probe"]["steps"] == 20
    branch = Path("branches", "first", "model.safetensors")
    assert (folder / branch).read_bytes() == (reference / branch).read_bytes() and audit(folder) == []
    assert sorted(path.name for path in (folder / "branches").iterdir()) == ["first"]


def test_a_run_stopped_on_a_branch_is_taken_up_there(reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert outlay.run(branched(), folder, display=Watching(36, interrupt)).exit_code == 3
    result = outlay.resume(folder, recipe=branched())
    assert [line["from_step"] for line in lines(folder, "resume")] == [36] and result.lost.get("steps", 0) == 0
    same(folder, reference)


# ---- repeated -----------------------------------------------------------------------------------------------------------------------


def timed(clock: FakeClock, *plan: tuple[float, Branch], **changes: Any) -> Recipe:
    """6 seconds on a simulated clock."""
    plain = {"budget": "6s", "checkpoints": {"every_seconds": 0.7}}
    return paced(asking(*plan, **{**plain, **changes}), clock, 0.0025)


def repeat(folder: Path, recipe: Recipe) -> None:
    again = folder.parent / "again"
    result = outlay.replay(folder, again, recipe=recipe)
    assert weights(again) == weights(folder) and result.metrics == result_of(folder)["metrics"]
    history, repeated = effective(read_journal(folder)), read_journal(again)
    for kind in ("step", "branch_step", "branch"):
        told, retold = ([line for line in journal if line["kind"] == kind] for journal in (history, repeated))
        for key in ("what", "step", "branch", "name", "progress", "loss", "knobs", "end", "metrics"):
            assert [str(line.get(key)) for line in retold] == [str(line.get(key)) for line in told], (kind, key)


def test_a_run_limited_by_seconds_is_repeated_with_its_branches(tmp_path: Path) -> None:
    plan = [
        (0.2, Branch("in steps", Linear(), steps=6, evaluate=True, save=True)), (0.4, Branch("too long", share=0.7)),
        (0.4, Branch("a share", Linear(), share=0.1, rewind_data=False)), (0.5, Branch("kept", Linear(), share=0.1, keep=True)),
        (0.6, Branch("straight after", steps=3)),
    ]  # fmt: skip
    clock, folder = FakeClock(), tmp_path / "run"
    outlay.run(timed(clock, *plan), folder, clock=clock)
    assert clock.now <= 6.0 and audit(folder) == []
    assert [line["end"] for line in at(folder, "landed")] == ["whole"] * 4 and len(at(folder, "refused")) == 1
    repeat(folder, timed(FakeClock(), *plan))


def test_a_timed_run_killed_on_a_branch_is_repeated(tmp_path: Path) -> None:
    plan = [(0.3, Branch("ahead", Linear(), share=0.3, evaluate=True))]
    folder = tmp_path / "run"

    def die() -> None:
        clock = FakeClock()
        outlay.run(timed(clock, *plan), folder, clock=clock, display=Watching(36, lambda: os.kill(os.getpid(), signal.SIGKILL)))

    assert wait(child(die)) == -signal.SIGKILL
    assert at(folder, "begun") and not at(folder, "landed")
    clock = FakeClock()
    outlay.resume(folder, recipe=timed(clock, *plan), clock=clock)
    assert at(folder, "landed")
    repeat(folder, timed(FakeClock(), *plan))


def test_roll_backs_after_branches_are_repeated(tmp_path: Path) -> None:
    """Saved by the clock, on a branch or off it; where the run goes back to depends on which it was."""
    plan = [(0.2, Branch("one", steps=12)), (0.45, Branch("two", steps=12)), (0.7, Branch("three", steps=8))]

    def spoilt(clock: FakeClock) -> Recipe:
        recipe = paced(asking(*plan, budget="7s", checkpoints={"every_seconds": 0.5}, health={"nonfinite": "roll_back"}), clock, 0.0025)
        return with_objective(recipe, Poisoned(inner=recipe.stages[0].objective), poison=Knob(1.0, _Late()))  # type: ignore[arg-type]

    clock, folder = FakeClock(), tmp_path / "run"
    outlay.run(spoilt(clock), folder, clock=clock)
    assert len([line for line in lines(folder, "decision") if "rolled back" in line["what"]]) > 1
    repeat(folder, spoilt(FakeClock()))
    back = [[line["what"] for line in lines(one, "decision") if "rolled" in line["what"]] for one in (folder, tmp_path / "again")]
    assert back[0] == back[1]


class _Late:
    """Not 0 in narrow bands of progress."""

    def value(self, progress: float) -> float:
        return float(int(progress * 40) in (14, 26, 35))


# ---- refused ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "", "steps": 1}, "name must not be empty"),
        ({"name": "a/b", "steps": 1}, "or hold '/', found 'a/b'"),
        ({"name": "x"}, "a length in steps or as a share of the budget, found None steps and share None"),
        ({"name": "x", "steps": 1, "share": 0.1}, "found 1 steps and share 0.1"),
        ({"name": "x", "steps": 0}, "at least one step, found 0"),
        ({"name": "x", "share": 1.0}, r"must lie in \(0, 1\), found 1.0"),
        ({"name": "x", "steps": 1, "leaves": -1.0}, "finite and >= 0, found -1.0"),
    ],
)
def test_a_wrong_branch_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Branch(**fields)


def test_a_controller_that_branches_is_the_whole_schedule() -> None:
    source = examined().stages[0].source
    with pytest.raises(InputError, match="knobs.lr: a controller that branches must be the knob's schedule itself.*unwrap it"):
        Stage(source, knobs={"lr": Knob(0.1, Product((Linear(), Asks())))})
    assert isinstance(Asks(), Brancher) and not isinstance(Counts(), Brancher)


def test_the_seam_of_the_tests_own_controller() -> None:
    check_controller(lambda: Asks(((0.5, Branch("x", steps=1)),)), [record(k, 1.0, progress=k / 4) for k in range(1, 4)])
    assert plain_stage()["batch_size"] == 32  # what the numbers above rest on
