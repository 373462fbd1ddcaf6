"""The callback in Lightning's real Trainer, on the digits."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hosted import identical, record, weights
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lit import Digits, loaders, make_trainer

from outlay import InputError, Knob
from outlay.controllers import Plateau
from outlay.integrations.host import CLOSING
from outlay.integrations.lightning import BudgetCallback
from outlay.reporting import report
from outlay.schedules import Linear, Rex
from outlay.testing import FakeClock

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning", "ignore:.*LeafSpec.*")


def spend(folder: Path, budget: str, knobs: Any = None, module: Digits | None = None, more: Any = (), data: Any = None, settings: Any = None,
          **arguments: Any) -> tuple[BudgetCallback, Digits, Any]:  # fmt: skip
    """Fit on a budget; ``more`` are further callbacks."""
    callback = BudgetCallback(budget, {"lr": Rex()} if knobs is None else knobs, **(settings or {}))
    trainer, module = make_trainer(folder, callback, *more, **arguments), module or Digits()
    trainer.fit(module, *(data or loaders()))
    return callback, module, trainer


class Slow(Callback):
    """Lets steps, validations and saves take time on a clock."""

    def __init__(self, clock: FakeClock, step: float = 1.0, validation: float = 3.0, save: float = 2.0) -> None:
        self.clock, self.step, self.validation, self.save = clock, step, validation, save

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        self.clock.advance(self.step)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.clock.advance(0.0 if trainer.sanity_checking else self.validation)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        self.clock.advance(self.save)


@pytest.mark.parametrize(("budget", "steps", "examples"), [("25 steps", 25, 800), ("800 examples", 25, 800), ("831 examples", 25, 800)])
def test_counted_budgets_are_kept_exactly(tmp_path: Path, budget: str, steps: int, examples: int) -> None:
    callback, module, trainer = spend(tmp_path, budget, limit_val_batches=0)
    run = record(callback)
    assert trainer.global_step == callback.result.steps == len(run.steps) == steps
    assert callback.result.spent["examples"] == examples and callback.result.exit_code == 0
    each, limit = (1, 25) if "steps" in budget else (32, int(budget.split()[0]))
    multipliers = [Rex().value(each * i / limit) for i in range(steps)]
    assert run.steps.progress == pytest.approx([each * i / limit for i in range(steps)], rel=1e-12)
    # two groups, each with its own rate
    assert [pair[0] for pair in module.rates] == pytest.approx([1e-2 * m for m in multipliers])
    assert [pair[1] for pair in module.rates] == pytest.approx([1e-3 * m for m in multipliers])
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.0, 0.0]


def test_validation_is_charged_and_kept_back(tmp_path: Path) -> None:
    callback, _, _ = spend(tmp_path, "1000 examples", settings={"name": "digits"})
    run, result = record(callback), callback.result
    # 64 at the start, after each of two epochs, and at the end: 23 x 32 + 4 x 64 = 992
    assert result.accounts["eval"]["examples"] == 256 and result.accounts["train"]["examples"] == 736
    assert [(one.step, one.when) for one in run.evaluations] == [(0, "start"), (10, "during"), (20, "during"), (23, "end")]
    assert (
        set(result.metrics) == set(result.metrics_start) == {"val_loss"} and result.metrics["val_loss"] < result.metrics_start["val_loss"]
    )
    assert "digits" in report(run.path).read_text()


def test_batches_of_unlike_size_never_pass_the_limit_and_the_last_validation_is_made(tmp_path: Path) -> None:
    class Growing(torch.utils.data.Sampler[list[int]]):
        def __iter__(self) -> Any:
            return iter([list(range(8)), list(range(8, 20)), list(range(20, 60)), list(range(60, 64))])

        def __len__(self) -> int:
            return 4

    train, test = loaders()
    data = torch.utils.data.DataLoader(train.dataset, batch_sampler=Growing()), test
    callback, _, _ = spend(tmp_path, "160 examples", data=data)  # 2 x 64 are for validation
    assert callback.result.accounts["train"]["examples"] == 20 and callback.result.steps == 2
    assert [(one.step, one.when) for one in record(callback).evaluations] == [(0, "start"), (2, "end")]


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    callback, module, _ = spend(tmp_path, "9 steps", accumulate_grad_batches=3, limit_val_batches=0)
    run = record(callback)
    # an epoch of 10 batches is three steps of 3 and one of 1
    assert run.steps.spent["examples"] == [96, 192, 288, 320, 416, 512, 608, 640, 736]
    assert module.rates[0] == module.rates[1] == module.rates[2] != module.rates[3]
    one, _, _ = spend(tmp_path / "uncut", "1 steps", data=loaders(96), limit_val_batches=0)
    assert run.steps.loss[0] == pytest.approx(record(one).steps.loss[0], rel=1e-5)
    assert run.steps.gradient_norm[0] == pytest.approx(record(one).steps.gradient_norm[0], rel=1e-5)


def test_other_fields_and_the_clipping_norm(tmp_path: Path) -> None:
    knobs = {"weight_decay": Knob(0.2, Linear()), "clip": Knob(1.0, Linear()), "dropout": 0.25}
    callback, module, trainer = spend(tmp_path, "10 steps", knobs, limit_val_batches=0, gradient_clip_val=9.0)
    run = record(callback)
    assert run.steps.knobs["weight_decay"] == pytest.approx([0.2 - 0.02 * i for i in range(10)])
    assert run.steps.knobs["clip"] == pytest.approx([1 - 0.1 * i for i in range(10)]) and trainer.gradient_clip_val == 0.0
    assert module.dropout.p == 0.25 and module.rates[-1] == [1e-2, 1e-3]


def test_seconds_leave_room_for_the_last_validation_and_save(tmp_path: Path) -> None:
    clock = FakeClock()
    callback, _, _ = spend(
        tmp_path, "100s", settings={"clock": clock}, more=(Slow(clock), ModelCheckpoint(tmp_path / "saved")), num_sanity_val_steps=0,
        check_val_every_n_epoch=10**6, enable_checkpointing=True,
    )  # fmt: skip
    run, result = record(callback), callback.result
    assert result.ended_by == "seconds" and clock.now == result.spent["seconds"] <= 100
    seconds = {name: book["seconds"] for name, book in result.accounts.items() if book["seconds"]}
    saves = seconds["checkpoint"] / 2
    assert seconds == {"train": result.steps, "eval": 6.0, "checkpoint": 2 * saves}
    # what is left is less than a step, what was kept back beyond the need, and a save that the last one may have saved
    assert 100 - clock.now <= 1 + 0.05 * 5 + CLOSING * 1.05 + 0.25 + 2
    assert [one.when for one in run.evaluations] == ["start", "end"] and run.steps.progress[-1] > 0.95


def test_a_real_clock(tmp_path: Path) -> None:
    callback, _, trainer = spend(tmp_path, "2s", enable_checkpointing=True)
    run, result = record(callback), callback.result
    spent = run.steps.spent["seconds"]
    # the last step began in time; what follows it takes as long as this machine happens to need
    assert result.ended_by == "seconds" and result.metrics and spent[-2] <= 2.0 and result.spent["seconds"] > spent[-1]
    assert run.steps.progress[-1] > 0.5 and trainer.optimizers[0].param_groups[0]["lr"] == 0.0


def test_resuming_from_lightnings_checkpoint_equals_never_having_stopped(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 24:
                raise RuntimeError("the machine went down")

    knobs = {"lr": Rex(), "beta1": Plateau(patience=2, factor=0.5)}
    whole, module, _ = spend(tmp_path / "whole", "1500 examples", knobs)
    keep = ModelCheckpoint(tmp_path / "saved", save_top_k=-1)
    before = BudgetCallback("1500 examples", knobs)
    with pytest.raises(RuntimeError, match="went down"):
        make_trainer(tmp_path / "parts", before, Stop(), keep, enable_checkpointing=True).fit(Digits(), *loaders())
    assert before.result.ended_by == "failure" and before.result.exit_code == 4
    checkpoint = sorted((tmp_path / "saved").iterdir())[-1]
    after, resumed = BudgetCallback("1500 examples", knobs), Digits(seed=7)
    make_trainer(tmp_path / "parts", after).fit(resumed, *loaders(), ckpt_path=checkpoint, weights_only=True)
    assert identical(weights(module), weights(resumed))
    one, two = record(whole), record(after)
    assert two.path == before.run.folder and two.steps.step == one.steps.step and two.steps.progress == one.steps.progress
    assert two.steps.knobs == one.steps.knobs and two.steps.loss == one.steps.loss
    counted = {unit: amount for unit, amount in whole.result.spent.items() if unit != "seconds"}
    assert {unit: after.result.spent[unit] for unit in counted} == counted
    assert after.result.lost["steps"] == 4 and after.result.metrics_start == whole.result.metrics_start


def test_a_trainer_that_ends_first_says_so(tmp_path: Path) -> None:
    callback = BudgetCallback("100 steps", {"lr": Rex()})
    with pytest.warns(UserWarning, match="ended the run after step 20 with 20 % of the budget 100 steps spent .max_epochs is 2"):
        make_trainer(tmp_path, callback, max_epochs=2).fit(Digits(), *loaders())
    assert callback.result.ended_by == "data" and record(callback).warnings


def test_the_module_is_left_as_it_was(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, module, trainer = spend(tmp_path, "3 steps")
    assert "on_train_batch_start" not in vars(module)
    trainer.validate(module, loaders()[1], verbose=False)  # after the run nothing is charged any more


def test_wrong_input_costs_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no group of the optimizer has a field 'momentum'"):
        spend(tmp_path, "3 steps", {"momentum": Rex()})
    with pytest.raises(InputError, match="reserve must be a finite number of seconds >= 0"):
        BudgetCallback("3 steps", reserve=-1.0)
    assert not list(tmp_path.glob("outlay-*"))
