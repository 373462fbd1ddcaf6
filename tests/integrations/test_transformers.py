"""The callback in the real Trainer, on a small Llama."""

from __future__ import annotations

import json
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hosted import Rows, identical, language_model, make_trainer, record, ticking, trainer_state, weights
from typer.testing import CliRunner

from outlay import InputError, Knob
from outlay.cli import app
from outlay.controllers import Plateau
from outlay.integrations.host import CLOSING
from outlay.integrations.torch import BudgetScheduler
from outlay.integrations.transformers import BudgetCallback
from outlay.schedules import Constant, Linear, Rex
from outlay.testing import FakeClock
from outlay.train.journal import read_journal


def spend(trainer: Any, budget: str, knobs: Any = None, **settings: Any) -> BudgetCallback:
    """Train on a budget with the callback attached."""
    callback = BudgetCallback(budget, {"lr": Rex()} if knobs is None else knobs, **settings).attach(trainer)
    trainer.train()
    return callback


@pytest.mark.parametrize(
    ("budget", "steps", "spent"),
    [
        ("20 steps", 20, {"steps": 20, "examples": 80, "tokens": 640}),  # more than the epoch of 16
        ("640 tokens", 20, {"tokens": 640}),
        ("671 tokens", 20, {"tokens": 640}),  # 672 would be over
        ("50 examples", 12, {"examples": 48}),
        ("$1 at $2.5/k tokens", 12, {"tokens": 384}),
    ],
)
def test_counted_budgets_are_kept_exactly(tmp_path: Path, budget: str, steps: int, spent: dict[str, float]) -> None:
    trainer = make_trainer(tmp_path)
    callback = spend(trainer, budget)
    run = record(callback)
    assert trainer.state.global_step == callback.result.steps == len(run.steps) == steps
    assert {unit: callback.result.spent[unit] for unit in spent} == spent
    assert run.ended_by == callback.result.ended_by == next(iter(run.limits))
    assert callback.result.exit_code == 0
    # every step stood at what had been spent before it, and the floor is reached at the end
    limit = run.limits[run.ended_by]
    price = 2.5e-3 if run.ended_by == "usd" else 1.0
    each = {"steps": 1, "tokens": 32, "examples": 4, "usd": 32}[run.ended_by]
    expected = [each * i / int(limit / price + 1e-9) for i in range(steps)]
    assert run.steps.progress == pytest.approx(expected, rel=1e-12)
    assert run.steps.knobs["lr"] == pytest.approx([1e-2 * Rex().value(p) for p in expected], rel=1e-12)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.0


def test_flops_follow_the_trainers_own_formula(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    a_step = 6 * 32 * trainer.model.num_parameters(exclude_embeddings=True)
    callback = spend(trainer, f"{3.5 * a_step} flops")
    assert callback.result.steps == 3 and callback.result.spent["flops"] == 3 * a_step


def test_batches_of_unlike_length_never_pass_the_limit(tmp_path: Path) -> None:
    rows = Rows(64, lengths=(2, 2, 2, 2, 3, 3, 3, 3, 9, 9, 9, 9))
    order = [8, 12, 36]  # tokens of the batches, in turn

    class InOrder(torch.utils.data.SequentialSampler):
        pass

    from transformers import Trainer

    class Ordered(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return InOrder(rows)

    trainer = make_trainer(tmp_path, rows, trainer_class=Ordered)
    # the third batch is longer than any before it: only looking at it tells that it does not fit
    callback = spend(trainer, "40 tokens")
    assert callback.result.spent["tokens"] == order[0] + order[1] and callback.result.steps == 2
    assert callback.result.ended_by == "tokens"


def test_gradient_accumulation_charges_whole_steps(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=3)
    callback = spend(trainer, "9 steps")
    run = record(callback)
    # an epoch of 16 batches is 5 steps of 3 and one of 1
    assert run.steps.spent["examples"] == [12, 24, 36, 48, 60, 64, 76, 88, 100]


def test_losses_and_gradient_norms_are_the_trainers(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=2, logging_strategy="steps", logging_steps=1)
    run = record(spend(trainer, "6 steps", {"lr": Rex(), "clip": Knob(0.5)}))
    logged = [line for line in trainer.state.log_history if "loss" in line]
    assert run.steps.loss == pytest.approx([line["loss"] for line in logged], rel=1e-5)
    assert run.steps.gradient_norm == pytest.approx([line["grad_norm"] for line in logged], rel=1e-6)
    assert run.steps.knobs["lr"] == [line["learning_rate"] for line in logged]  # the log tells the rate that was used
    assert trainer.args.max_grad_norm == 0.5


def test_groups_keep_their_own_rates(tmp_path: Path) -> None:
    model = language_model()
    body, head = [p for n, p in model.named_parameters() if "embed" not in n], [model.get_input_embeddings().weight]
    optimizer = torch.optim.AdamW([{"params": body, "lr": 1e-2, "weight_decay": 0.1}, {"params": head, "lr": 1e-4, "weight_decay": 0.0}])
    trainer = make_trainer(tmp_path, model=model, optimizers=(optimizer, None))
    seen = []
    ticking(trainer, FakeClock(), lambda: seen.append([(g["lr"], g["weight_decay"]) for g in optimizer.param_groups]) or 0.0)
    spend(trainer, "4 steps", {"lr": Linear(), "weight_decay": Linear()})
    assert [lr for (lr, _), _ in seen] == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3])
    assert [lr for _, (lr, _) in seen] == pytest.approx([1e-4, 7.5e-5, 5e-5, 2.5e-5])
    assert [pair[1] for pair, _ in seen] == pytest.approx([0.1, 0.075, 0.05, 0.025]) and {pair[1] for _, pair in seen} == {0.0}


def test_the_trainers_own_scheduler_does_not_interfere(tmp_path: Path) -> None:
    after = []
    for kind in ("constant", "linear", "cosine"):
        trainer = make_trainer(tmp_path / kind, lr_scheduler_type=kind, warmup_steps=3 if kind == "cosine" else 0)
        callback = spend(trainer, "10 steps")
        after.append((weights(trainer.model), record(callback).steps.knobs["lr"]))
    assert all(identical(after[0][0], other[0]) and after[0][1] == other[1] for other in after[1:])
    assert any("follows the budget" in what for what, _ in record(callback).decisions)


def test_a_schedule_of_the_trainer_stays_where_no_knob_drives_it(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, lr_scheduler_type="linear", weight_decay=0.1)
    run = record(spend(trainer, "10 steps", {"weight_decay": Linear()}))
    assert trainer.optimizer.param_groups[0]["lr"] == 0.0 and run.steps.knobs["weight_decay"][5] == 0.05


def test_the_scheduler_alone_in_a_trainer(tmp_path: Path) -> None:
    model = language_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = BudgetScheduler(optimizer, Rex(), "8 steps")
    trainer = make_trainer(tmp_path, model=model, optimizers=(optimizer, scheduler), max_steps=8, logging_strategy="steps", logging_steps=1)
    trainer.train()
    rates = [line["learning_rate"] for line in trainer.state.log_history if "loss" in line]
    assert rates == pytest.approx([1e-2 * Rex().value(i / 8) for i in range(8)]) and scheduler.get_last_lr() == [0.0]


# ---- seconds ------------------------------------------------------------------------------------------------------------------------------


def timed(folder: Path, clock: FakeClock, step: Any = 1.0, evaluation: float = 3.0, save: float = 2.0, **arguments: Any) -> Any:
    """Return a trainer whose steps, evaluations and saves take time on a clock of their own."""
    defaults = {"eval_strategy": "steps", "eval_steps": 10**6, "save_strategy": "steps", "save_steps": 10**6, "save_total_limit": 1}
    trainer = make_trainer(folder, eval_dataset=Rows(6, seed=1), **{**defaults, **arguments})
    ticking(trainer, clock, step)
    ticking(trainer, clock, evaluation, "evaluation_loop")
    ticking(trainer, clock, save, "_save_checkpoint")
    return trainer


def test_seconds_leave_room_for_the_last_evaluation_and_save(tmp_path: Path) -> None:
    clock = FakeClock()
    trainer = timed(tmp_path, clock)
    callback = spend(trainer, "100s", clock=clock)
    run, result = record(callback), callback.result
    # one evaluation and one save after the first step and after the last, 5 s each pair, and 5 % of that kept back for what may be slower
    assert result.steps == 100 - 2 * 5 - 1
    assert clock.now == result.spent["seconds"] == 99.0 and result.ended_by == "seconds"
    assert {name: book["seconds"] for name, book in result.accounts.items() if book["seconds"]} == {"train": 89, "eval": 6, "checkpoint": 4}
    assert [(one.step, one.when) for one in run.evaluations] == [(1, "during"), (89, "end")]
    assert result.accounts["eval"]["examples"] == 12 and result.accounts["eval"]["tokens"] == 96
    # the schedule ends where training must end, not at the declared limit
    assert run.steps.progress[-1] == pytest.approx(93 / (100 - (5 + CLOSING) * 1.05), rel=1e-9)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.0
    assert [line["step"] for line in read_journal(run.path) if line["kind"] == "checkpoint"] == [1, 89]


def test_steps_that_grow_slower_do_not_pass_the_limit(tmp_path: Path) -> None:
    clock = FakeClock()
    durations = iter([0.5] * 30 + [0.7] * 1000)
    trainer = timed(tmp_path, clock, step=lambda: next(durations), eval_on_start=True)
    callback = spend(trainer, "60s", clock=clock)
    assert 60 - 0.7 - 0.005 * 60 - 0.25 - 0.1 <= clock.now <= 60
    assert record(callback).metrics_start["eval_loss"] > 0


def test_an_evaluation_that_uses_what_was_kept_back_is_the_last(tmp_path: Path) -> None:
    clock = FakeClock()
    trainer = timed(tmp_path, clock, evaluation=10.0, save=0.0, eval_steps=7)
    callback = spend(trainer, "60s", clock=clock)
    whens = [(one.step, one.when) for one in record(callback).evaluations]
    # after step 21: 21 + 3 x 10 + 10 (the rehearsal) = 61 would be over, so the run ends in time for its last one
    assert whens == [(1, "during"), (7, "during"), (14, "during"), (20, "end")] or clock.now <= 60
    assert clock.now <= 60 and whens[-1][0] == callback.result.steps


def test_a_real_clock(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, eval_dataset=Rows(6, seed=1), eval_strategy="steps", eval_steps=10**6, save_strategy="steps")
    callback = spend(trainer, "2s")
    run, result = record(callback), callback.result
    spent = run.steps.spent["seconds"]
    # the last step began in time; what follows it takes as long as this machine happens to need
    assert result.ended_by == "seconds" and result.metrics and spent[-2] <= 2.0 and result.spent["seconds"] > spent[-1]
    assert run.steps.progress[-1] > 0.5 and trainer.optimizer.param_groups[0]["lr"] == 0.0


# ---- checkpoints ----------------------------------------------------------------------------------------------------------------------------


def test_resuming_from_the_trainers_checkpoint_equals_never_having_stopped(tmp_path: Path) -> None:
    def begin(folder: Path) -> Any:
        trainer = make_trainer(
            folder, save_strategy="steps", save_steps=9, eval_strategy="steps", eval_steps=4, eval_dataset=Rows(6, seed=1)
        )
        knobs = {"lr": Rex(), "beta1": Plateau(patience=2, factor=0.5)}
        return trainer, BudgetCallback("1000 tokens", knobs).attach(trainer)

    whole, callback = begin(tmp_path / "whole")
    whole.train()
    interrupted, before = begin(tmp_path / "parts")
    ticking(interrupted, FakeClock(), lambda: exec("raise KeyboardInterrupt") if interrupted.state.global_step == 12 else 0.0)  # type: ignore[func-returns-value]
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    before.run.journal.close()  # as the end of a process would
    resumed, after = begin(tmp_path / "parts")
    resumed.train(resume_from_checkpoint=True)
    assert identical(weights(whole.model), weights(resumed.model))
    one, two = record(callback), record(after)
    assert two.path == before.run.folder
    assert two.steps.step == one.steps.step == list(range(1, callback.result.steps + 1))
    assert two.steps.progress == one.steps.progress and two.steps.knobs == one.steps.knobs and two.steps.loss == one.steps.loss
    counted = {unit: amount for unit, amount in callback.result.spent.items() if unit != "seconds"}
    assert {unit: after.result.spent[unit] for unit in counted} == counted and after.result.ended_by == "tokens"
    assert after.result.lost["steps"] == 3 and after.result.lost["tokens"] == 3 * 32 + 8 * 6
    assert [e.when for e in one.evaluations] == [e.when for e in two.evaluations]


def test_seconds_go_on_after_a_resumption(tmp_path: Path) -> None:
    clock = FakeClock()
    first = timed(tmp_path, clock, save_steps=10, evaluation=1.0, save=1.0)
    callback = BudgetCallback("60s", {"lr": Rex()}, clock=clock).attach(first)
    ticking(first, clock, lambda: exec("raise KeyboardInterrupt") if first.state.global_step == 15 else 0.0)  # type: ignore[func-returns-value]
    with pytest.raises(KeyboardInterrupt):
        first.train()
    callback.run.journal.close()
    spent = clock.now
    clock.now += 1000.0  # the machine was down
    second = timed(tmp_path, clock, save_steps=10, evaluation=1.0, save=1.0)
    again = BudgetCallback("60s", {"lr": Rex()}, clock=clock).attach(second)
    second.train(resume_from_checkpoint=True)
    run = record(again)
    assert clock.now - 1000.0 == again.result.spent["seconds"] and 58 <= again.result.spent["seconds"] <= 60
    assert again.result.accounts["lost"]["seconds"] == again.result.lost["seconds"] == 5.0
    assert run.steps.step == list(range(1, again.result.steps + 1))
    assert run.steps.progress[10] > (spent - 1.0) / 60  # lost seconds are spent
    assert all(a < b for a, b in pairwise(run.steps.progress))


def test_a_larger_budget_stretches_the_schedule(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_strategy="steps")
    first = spend(trainer, "10 steps")
    trainer = make_trainer(tmp_path, save_strategy="steps")
    with pytest.raises(InputError, match="nothing is left of the budget 10 steps to train with"):
        BudgetCallback("10 steps", {"lr": Rex()}).attach(trainer)
        trainer.train(resume_from_checkpoint=True)
    trainer = make_trainer(tmp_path, save_strategy="steps")
    callback = BudgetCallback("40 steps", {"lr": Rex()}).attach(trainer)
    trainer.train(resume_from_checkpoint=True)
    run = record(callback)
    assert run.path != first.run.folder and run.steps.step == list(range(11, 41))
    assert run.steps.progress[0] == 0.25 and run.steps.knobs["lr"][0] == pytest.approx(1e-2 * Rex().value(0.25))
    assert callback.result.spent["tokens"] == 40 * 32 and run.ended_by == "steps"


def test_a_checkpoint_made_without_the_callback_can_be_gone_on_with(tmp_path: Path) -> None:
    make_trainer(tmp_path, max_steps=5, save_strategy="steps").train()
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=2)
    callback = BudgetCallback("4 steps", {"lr": Rex()}).attach(trainer)
    trainer.args.max_steps = 9
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 9 and callback.result.spent["steps"] == 4
    assert trainer_state(tmp_path / "checkpoint-9")["attributes"]["_saved"]["step"] == 9


# ---- what is said ---------------------------------------------------------------------------------------------------------------------------


def test_a_trainer_that_ends_first_says_so(tmp_path: Path) -> None:
    callback = BudgetCallback("100 steps", {"lr": Rex()})
    trainer = make_trainer(tmp_path, callbacks=[callback], num_train_epochs=1)
    with pytest.warns(UserWarning, match=r"ended the run after step 16 with 16 % of the budget 100 steps spent \(max_steps is 16\)"):
        trainer.train()
    assert callback.result.ended_by == "data" and callback.result.exit_code == 3 and record(callback).warnings


def test_in_the_list_of_callbacks_alone(tmp_path: Path) -> None:
    callback = BudgetCallback("650 tokens", {"lr": Rex()})
    trainer = make_trainer(tmp_path, callbacks=[callback], max_steps=1000, eval_strategy="epoch", eval_dataset=Rows(4, seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer.train()
    run = record(callback)
    # 32 a step; 32 an evaluation: one rehearsed after the first step, one after the first epoch, one at the end
    assert callback.result.spent["tokens"] == 640 and callback.result.steps == 17
    assert run.steps.loss == [None] * 17 and [e.when for e in run.evaluations] == ["during", "during", "end"]


def test_wrong_input_costs_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read 'ten minutes'"):
        BudgetCallback("ten minutes")
    trainer = make_trainer(tmp_path / "a")
    with pytest.raises(InputError, match="no group of the optimizer has a field 'lrr'; did you mean 'lr'"):
        spend(trainer, "10 steps", {"lrr": Rex()})
    trainer = make_trainer(tmp_path / "b", restore_callback_states_from_checkpoint=True)
    with pytest.raises(InputError, match="leave it False"):
        spend(trainer, "10 steps")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"):
        spend(make_trainer(tmp_path / "c"), "10 steps", out=tmp_path / "full")
    assert not list(tmp_path.glob("*/outlay-1")) and trainer.state.global_step == 0


def test_units_that_others_charge_end_the_run_too(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    callback = BudgetCallback("25 rollouts", {"lr": Constant()}).attach(trainer)
    ticking(trainer, FakeClock(), lambda: callback.meter.charge("rollout", rollouts=4) or 0.0)  # type: ignore[func-returns-value]
    with pytest.raises(InputError, match="the run has not begun"):
        _ = callback.meter
    trainer.train()
    assert callback.result.ended_by == "rollouts" and 25 <= callback.result.spent["rollouts"] < 29


def test_dropout_is_a_knob(tmp_path: Path) -> None:
    model = language_model()
    model.extra = torch.nn.Dropout(0.4)
    trainer = make_trainer(tmp_path, model=model)
    run = record(spend(trainer, "4 steps", {"dropout": Linear()}))
    assert run.steps.knobs["dropout"] == pytest.approx([0.4, 0.3, 0.2, 0.1]) and model.extra.p == 0.0


def test_the_report_reads_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, eval_strategy="steps", eval_steps=5, eval_dataset=Rows(6, seed=1), eval_on_start=True)
    spend(trainer, "20 steps", name="small llama", out=tmp_path / "run")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert done.exit_code == 0 and "small llama" in done.output and "eval_loss" in done.output, done.output
    page = (tmp_path / "run" / "report.html").read_text()
    assert "small llama" in page and "transformers.Trainer" in page
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metrics_start"]["eval_loss"] > result["metrics"]["eval_loss"] and result["stages"][0]["steps"] == 20
