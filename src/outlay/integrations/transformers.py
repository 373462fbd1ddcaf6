"""Budgets in the Hugging Face Trainer, and so in TRL's trainers: one callback."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from outlay.budget import Budget
from outlay.errors import InputError, MissingExtra
from outlay.integrations.host import Dial, HostRun, Settings
from outlay.integrations.torch import Driven, read_budget
from outlay.meter import Meter
from outlay.train.pace import flow_limits
from outlay.train.result import Result

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import ExportableState
except ImportError:
    raise MissingExtra("transformers", "hf") from None

#: steps that no run reaches, for a trainer that must be given a number
ENDLESS = 10**9
#: evaluation metrics of the trainer that measure no model
_NO_METRIC = ("epoch", "_runtime", "_per_second", "_preparation_time")


class BudgetCallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Spends a budget in a ``transformers.Trainer`` or one of TRL's: sets knobs, keeps books, stops on the budget, leaves a run directory.

        BudgetCallback("30m", {"lr": Warmup(0.05, Rex())}).attach(trainer)
        trainer.train()

    ``attach`` hands the callback the trainer, so that it sees every batch before it is trained on. Given in ``callbacks=[...]`` alone it
    works too, with three differences: a step is expected to take no more counted units than the largest one so far, losses and gradient norms
    are not known step by step, and the trainer's ``max_steps`` or ``num_train_epochs`` stay in force.

    Args:
        budget: what may be spent, also as text. Every account counts, evaluations included. Units that nobody else charges (``rollouts``,
            ``new_tokens``, ``labels``) are charged by you, with ``callback.meter.charge("rollout", rollouts=8)``.
        knobs: name -> knob, schedule, controller or number, for fields of the optimizer's groups (``lr``, ``weight_decay``, ``beta1`` ...; see
            ``outlay.integrations.torch.GroupKnobs``), ``clip`` (the trainer's ``max_grad_norm``) and ``dropout`` (of every ``nn.Dropout``).
        out: the run directory, for ``outlay report``; None for ``outlay-<number>`` in the trainer's ``output_dir``.
        name: of the run.
        evaluate: whether to evaluate after the last step; None: when the trainer evaluates at all. Where evaluations take of a limited unit and
            none has been made yet, the first step is followed by one, so that what the last one takes can be kept back.
        save: whether to save a checkpoint after the last step; None: when the trainer saves at all. Measured in the same way.
        reserve: seconds to keep back for what follows besides, such as loading the best model, >= 0.
        began: reading of the clock from which seconds count; None for the moment when training begins.
        clock: returns seconds.

    Raises:
        InputError: when the budget cannot be read; when training begins also for knobs, directory and arguments that cannot be used.
    """

    def __init__(
        self,
        budget: Budget | str,
        knobs: Mapping[str, Driven] | None = None,
        *,
        out: Path | str | None = None,
        name: str = "run",
        evaluate: bool | None = None,
        save: bool | None = None,
        reserve: float = 0.0,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = Settings(
            read_budget(budget), dict(knobs or {}), Path(out) if out is not None else None, name, reserve, began, clock
        )
        self._evaluate, self._save = evaluate, save
        self._trainer: Trainer | None = None
        self._hook: Any = None
        #: the run as it is being spent; None before training
        self.run: HostRun | None = None
        #: what the run came to; None before its end
        self.result: Result | None = None

    def attach(self, trainer: Trainer) -> BudgetCallback:
        """Join a trainer before it trains, and leave the length of the run to the budget unless ``max_steps`` is set; return the callback."""
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        self._trainer = trainer
        if trainer.args.max_steps <= 0:
            trainer.args.max_steps = int(flow_limits(self._settings.budget).get("steps", ENDLESS))
        fetch, train, clip = trainer.get_batch_samples, trainer.training_step, trainer.accelerator.clip_grad_norm_

        def get_batch_samples(*arguments: Any, **named: Any) -> Any:
            samples, items = fetch(*arguments, **named)
            if samples and not self._room_for(samples):
                trainer.control.should_training_stop = True
                return [], None
            return samples, items

        def training_step(*arguments: Any, **named: Any) -> torch.Tensor:
            loss: torch.Tensor = train(*arguments, **named)
            self._running.pending.add_loss(loss)
            return loss

        def clip_grad_norm_(*arguments: Any, **named: Any) -> Any:
            norm = clip(*arguments, **named)
            if norm is not None:
                self._running.pending.gradient_norm = float(norm)
            return norm

        trainer.get_batch_samples, trainer.training_step = get_batch_samples, training_step
        trainer.accelerator.clip_grad_norm_ = clip_grad_norm_
        return self

    @property
    def meter(self) -> Meter:
        """The books of the run that is being spent."""
        return self._running.meter

    @property
    def _running(self) -> HostRun:
        if self.run is None:
            raise InputError("the run has not begun; its books are kept from the moment when training begins")
        return self.run

    def _room_for(self, samples: list[Any]) -> bool:
        run, total = self._running, dict[str, float]()
        for batch in samples:
            # a list of rows (GRPO's prompts) becomes a batch only later
            for unit, amount in run.units(batch).items() if isinstance(batch, Mapping) else ():
                total[unit] = total.get(unit, 0.0) + amount
        return run.fits(total)

    # ---- the trainer's events -----------------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module | None = None,
                       optimizer: Any = None, lr_scheduler: Any = None, **kwargs: Any) -> None:  # fmt: skip
        """Open the run, or go on with the one that the checkpoint tells of."""
        if args.restore_callback_states_from_checkpoint:
            raise InputError("restore_callback_states_from_checkpoint makes callbacks anew without their knobs; leave it False, since this "
                             "one goes on by itself")  # fmt: skip
        if self.run is not None and not self.run.closed:
            self.run.finish("failure")  # the trainer began again after an error
        assert model is not None
        states = state.stateful_callbacks.get(type(self).__name__, {})
        saved = states.get("attributes", {}).get("_saved") if isinstance(states, dict) else None
        dials = {"clip": Dial(args.max_grad_norm, lambda value: setattr(args, "max_grad_norm", value))}
        run = self.run = HostRun(self._settings, "transformers.Trainer", Path(args.output_dir), model, [optimizer], dials, saved, args.seed)
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())  # a checkpoint made without this callback lacks the place
        if "lr" in self._settings.knobs and str(args.lr_scheduler_type) not in ("SchedulerType.CONSTANT", "constant"):
            run.journal.write(
                "decision", what="the learning rate follows the budget", why=f"not the trainer's own {args.lr_scheduler_type}"
            )
        if self._hook is not None:
            self._hook.remove()
        self._hook = model.register_forward_pre_hook(self._forward, with_kwargs=True)
        run.enter("eval" if args.eval_on_start else "data")

    def _forward(self, model: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Count what passes the model: with gradients it is trained on, without it counts if it is an evaluation."""
        run = self._running
        batch = named if "input_ids" in named or not arguments else arguments[0]
        if model.training and torch.is_grad_enabled():
            run.pending.add(run.units(batch))
        elif run.account == "eval":
            run.evaluation.add(run.units(batch, training=False))

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, lr_scheduler: Any = None,
                      **kwargs: Any) -> None:  # fmt: skip
        """Write the knobs of the coming step."""
        run = self._running
        run.enter("train")
        values = run.write_knobs()
        if "lr" in values and hasattr(lr_scheduler, "_last_lr"):  # what the trainer logs
            lr_scheduler._last_lr = [group["lr"] for group in lr_scheduler.optimizer.param_groups]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Charge the step, and stop when there is no room for another."""
        run = self._running
        run.finish_step(state.global_step)
        if not run.ask():
            control.should_training_stop = True
        elif self._unmeasured("evaluation", self._evaluates(args), "seconds", "tokens", "examples", "flops"):
            control.should_evaluate = True
        elif self._unmeasured("checkpoint", self._saves(args), "seconds"):
            control.should_save = True
        return self._next(control)

    def _unmeasured(self, part: str, wanted: bool, *units: str) -> bool:
        run = self._running
        return wanted and run.limited_by(*units) and not any(name.startswith(part) for name in run.reserve.seconds)

    def on_prediction_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Let seconds go to the evaluation, whoever asked for it."""
        if self.run is not None and not self.run.closed and self.run.account != "eval":
            self.run.enter("eval")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Mapping[str, Any] | None = None,
                    **kwargs: Any) -> TrainerControl:  # fmt: skip
        """Put the evaluation on the books."""
        run = self.run
        if run is None or run.closed:
            return control
        run.evaluated({name: value for name, value in (metrics or {}).items() if not name.endswith(_NO_METRIC)})
        if not run.ask():
            control.should_training_stop = True
            control.should_save = control.should_save or self._due_save(args)
        elif self._unmeasured("checkpoint", self._saves(args), "seconds") and state.global_step:
            control.should_save = True
        return self._next(control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Put the checkpoint on the books."""
        run = self.run
        if run is None or run.closed:
            return control
        run.saved(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        # attached, the next step is refused before it begins, and the epoch's end still evaluates
        if not run.ask() and self._trainer is None:
            control.should_training_stop = True
        return self._next(control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """After the last step of the budget, evaluate and save."""
        run = self._running
        if run.ended_by:
            control.should_evaluate = control.should_evaluate or (self._evaluates(args) and run.evaluated_at != run.step)
            control.should_save = control.should_save or self._due_save(args)
            control.should_evaluate = control.should_evaluate and run.evaluated_at != run.step
            control.should_save = control.should_save and run.saved_at != run.step
        return self._next(control)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the run and write its result."""
        run = self._running
        self._hook.remove()
        self._hook = None
        if run.ended_by is None:
            share = f"{100 * run.meter.progress:.3g} %"
            run.warn(f"the trainer ended the run after step {state.global_step} with {share} of the budget {self._settings.budget} spent "
                     f"(max_steps is {state.max_steps}); raise max_steps or num_train_epochs, or attach the callback: "
                     "BudgetCallback(...).attach(trainer)")  # fmt: skip
        elif self._evaluates(args) and run.evaluated_at != run.step:
            run.warn("the evaluation after the last step was left out; attach the callback to be sure of it")
        self.result = run.finish("data")

    def _evaluates(self, args: TrainingArguments) -> bool:
        return args.eval_strategy != "no" if self._evaluate is None else self._evaluate

    def _saves(self, args: TrainingArguments) -> bool:
        return args.save_strategy != "no" if self._save is None else self._save

    def _due_save(self, args: TrainingArguments) -> bool:
        return self._saves(args) and self._running.saved_at != self._running.step

    def _next(self, control: TrainerControl) -> TrainerControl:
        self._running.enter("eval" if control.should_evaluate else "checkpoint" if control.should_save else "data")
        return control

    def state(self) -> dict[str, Any]:
        """Return what the trainer writes into its checkpoint's ``trainer_state.json``."""
        saved = self.run.state_dict() if self.run is not None and not self.run.closed else None
        return {"args": {"budget": str(self._settings.budget)}, "attributes": {"_saved": saved}}
