"""Budgets in Lightning's Trainer: one callback."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from outlay.budget import Budget
from outlay.errors import InputError, MissingExtra
from outlay.integrations.host import Dial, HostRun, Settings
from outlay.integrations.torch import Driven, read_budget
from outlay.meter import Meter
from outlay.train.result import FAILED, STOPPED, Result

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    raise MissingExtra("lightning", "lightning") from None


class BudgetCallback(Callback):
    """Spends a budget in ``lightning.pytorch.Trainer``: sets knobs, keeps books, stops on the budget, leaves a run directory.

        Trainer(max_epochs=-1, callbacks=[BudgetCallback("30m", {"lr": Warmup(0.05, Rex())})])

    Give ``max_epochs=-1``, or Lightning's own limit may end the run first, which is said. Schedulers of the module stay in force for what the
    knobs do not drive.

    Args:
        budget: what may be spent, also as text. Every account counts, validation included. Units that nobody else charges (``rollouts``,
            ``new_tokens``, ``labels``) are charged by you, with ``callback.meter.charge("rollout", rollouts=8)``.
        knobs: name -> knob, schedule, controller or number, for fields of the optimizers' groups (``lr``, ``weight_decay``, ``beta1`` ...; see
            ``outlay.integrations.torch.GroupKnobs``), ``clip`` (the trainer's ``gradient_clip_val``) and ``dropout`` (of every ``nn.Dropout``).
        out: the run directory, for ``outlay report``; None for ``outlay-<number>`` in the trainer's ``default_root_dir``.
        name: of the run.
        evaluate: whether to validate after the last step; None: when the trainer validates at all. Where validation takes of a limited unit it
            is also made before the first step, so that what the last one takes can be kept back.
        reserve: seconds to keep back for what follows besides, >= 0. Where the trainer writes checkpoints and seconds are limited, one is
            written on trial after the first step, so that what the last one takes can be kept back.
        began: reading of the clock from which seconds count; None for the moment when ``fit`` begins.
        clock: returns seconds.
        batch_units: batch -> unit -> amount, where a batch is neither a tensor, nor a mapping or sequence of tensors with a row an example.

    Raises:
        InputError: when the budget cannot be read; when training begins also for knobs and directory that cannot be used.
    """

    def __init__(
        self,
        budget: Budget | str,
        knobs: Mapping[str, Driven] | None = None,
        *,
        out: Path | str | None = None,
        name: str = "run",
        evaluate: bool | None = None,
        reserve: float = 0.0,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        batch_units: Callable[[Any], dict[str, float]] | None = None,
    ) -> None:
        super().__init__()
        self._settings = Settings(
            read_budget(budget), dict(knobs or {}), Path(out) if out is not None else None, name, reserve, began, clock
        )
        self._evaluate, self._batch_units = evaluate, batch_units
        self._saved: dict[str, Any] | None = None
        self._inside, self._last, self._known = False, -1, dict[str, Any]()
        self._coming: dict[str, float] = {}
        #: the run as it is being spent; None before training
        self.run: HostRun | None = None
        #: what the run came to; None before its end
        self.result: Result | None = None

    @property
    def meter(self) -> Meter:
        """The books of the run that is being spent."""
        return self._running.meter

    @property
    def _running(self) -> HostRun:
        if self.run is None:
            raise InputError("the run has not begun; its books are kept from the moment when training begins")
        return self.run

    # ---- Lightning's events -------------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when the run began: setting up and sanity checks count."""
        self._began = self._settings.clock() if self._settings.began is None else self._settings.began

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the run, or go on with the one that the checkpoint tells of."""
        settings = Settings(**{**vars(self._settings), "began": self._began})
        dials = {"clip": Dial(float(trainer.gradient_clip_val or 0.0), lambda value: setattr(trainer, "gradient_clip_val", value))}
        seed = int(torch.initial_seed() % 2**63)
        run = self.run = HostRun(settings, "lightning.pytorch.Trainer", Path(trainer.default_root_dir), pl_module, trainer.optimizers, dials,
                                 self._saved, seed)  # fmt: skip
        self._last, self._inside, self.result = trainer.global_step, False, None
        ask_module = pl_module.on_train_batch_start

        def on_train_batch_start(*arguments: Any, **named: Any) -> int | None:
            return -1 if run.ended_by else ask_module(*arguments, **named)

        # the module may answer -1, which ends the epoch before the batch; a callback may not
        object.__setattr__(pl_module, "on_train_batch_start", on_train_batch_start)
        measured = any(part.startswith("evaluation") for part in run.reserve.seconds)
        if self._validates(trainer) and run.limited_by("seconds", "tokens", "examples", "flops") and not measured:
            self._validate(trainer)
            if not run.ask():
                trainer.should_stop = True
        self._enter("data")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """See whether the batch fits, and write the knobs of a step that begins."""
        run = self._running
        self._enter("data")
        units = self._units(batch)
        whole = max(1, trainer.accumulate_grad_batches) if not self._inside else 1
        self._coming = units
        if not run.fits({unit: amount * whole for unit, amount in units.items()}):
            trainer.should_stop = True
            return
        self._enter("train")
        if not self._inside:
            run.write_knobs()
            self._inside = True

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Take the norm of the whole gradient, before it is clipped."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._running.pending.gradient_norm = float(torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Charge the batch, and after a step stop when there is no room for another."""
        run = self._running
        run.pending.add(self._coming)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor):
            run.pending.add_loss(loss.detach())
        if trainer.global_step == self._last:
            return
        self._last, self._inside = trainer.global_step, False
        run.finish_step(trainer.global_step)
        if not run.ask():
            trainer.should_stop = True
        elif self._writers and run.limited_by("seconds") and "checkpoint" not in run.reserve.seconds:
            self._rehearse(trainer)
        self._enter("data")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let seconds go to the evaluation."""
        if self._counting(trainer):
            self._known = dict(trainer.callback_metrics)
            self._enter("eval")

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
                                dataloader_idx: int = 0) -> None:  # fmt: skip
        """Count the batch."""
        if self._counting(trainer):
            self._running.evaluation.add(self._units(batch, training=False))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the evaluation on the books."""
        if self._counting(trainer):
            run, found = self._running, trainer.callback_metrics
            run.evaluated({name: value for name, value in found.items() if name not in self._known or found[name] is not self._known[name]})
            self._enter("data")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let seconds go to the checkpoint that is being written, until the next event."""
        if self.run is not None and not self.run.closed:
            self.run.enter("checkpoint")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the last step of the budget, validate unless Lightning has."""
        run = self._running
        if run.ended_by and self._validates(trainer) and run.evaluated_at != run.step:
            self._validate(trainer)
        self._enter("data")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the run and write its result."""
        if self.run is None or self.run.closed:
            return
        run = self._running
        self._enter("report")
        self._leave(pl_module)
        if run.ended_by is None:
            share = f"{100 * run.meter.progress:.3g} %"
            run.warn(f"Lightning ended the run after step {run.step} with {share} of the budget {self._settings.budget} spent (max_epochs is "
                     f"{trainer.max_epochs}, max_steps {trainer.max_steps}); give Trainer(max_epochs=-1) to leave the end to the budget")  # fmt: skip
        self.result = run.finish("data")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the run as failed, or as stopped by Ctrl-C or a signal."""
        if self.run is None or self.run.closed:
            return
        self._leave(pl_module)
        stopped = isinstance(exception, KeyboardInterrupt) or type(exception).__name__ == "SIGTERMException"
        message = f"{type(exception).__name__}: {exception}"
        self.result = self.run.finish("signal" if stopped else "failure", STOPPED if stopped else FAILED, message)

    def state_dict(self) -> dict[str, Any]:
        """Return what Lightning writes into its checkpoint."""
        return self.run.state_dict() if self.run is not None and not self.run.closed else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved run when training begins."""
        self._saved = state_dict

    # ---- helpers ------------------------------------------------------------------------------------------------------------------------

    def _counting(self, trainer: Trainer) -> bool:
        return self.run is not None and not self.run.closed and not trainer.sanity_checking

    def _units(self, batch: Any, training: bool = True) -> dict[str, float]:
        return self._batch_units(batch) if self._batch_units is not None else self._running.units(batch, training)

    def _enter(self, account: str) -> None:
        """Go on to an account; what was written before is a checkpoint that is now whole."""
        run = self._running
        if run.account == "checkpoint":
            writers = [getattr(part, "last_model_path", "") or getattr(part, "best_model_path", "") for part in self._writers]
            run.saved(Path(writers[0]) if writers and writers[0] else None)
        run.enter(account)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note who writes checkpoints."""
        self._writers = list(trainer.checkpoint_callbacks)

    def _validates(self, trainer: Trainer) -> bool:
        return trainer.enable_validation and self._evaluate is not False

    def _validate(self, trainer: Trainer) -> None:
        """Run the validation loop as Lightning does in the midst of training."""
        loop = trainer.fit_loop.epoch_loop
        first = trainer._logger_connector._first_loop_iter
        trainer.validating = True
        loop.val_loop.run()
        trainer.training = True
        trainer._logger_connector._first_loop_iter = first

    def _rehearse(self, trainer: Trainer) -> None:
        """Write a checkpoint once, away from its place, so that what the last one takes can be kept back."""
        aside = self._running.folder / ".rehearsal.ckpt"
        trainer.save_checkpoint(aside)
        self._enter("data")
        aside.unlink(missing_ok=True)

    def _leave(self, pl_module: LightningModule) -> None:
        vars(pl_module).pop("on_train_batch_start", None)
