"""The step of subspace optimizers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from outlay.formats.bf16 import Bf16
from outlay.inner_rules.base import Clears, Rotates
from outlay.layout import Slots, State
from outlay.optim.base import SCALES, by_name, decay_groups
from outlay.optim.sharded import gathered, is_sharded, local_part, local_view, place_of
from outlay.projectors.base import Cycles, Place, Turns
from outlay.residuals.base import Split
from outlay.rng import derive

if TYPE_CHECKING:
    from outlay.optim.subspace import Subspace


class SubspaceOptimizer(torch.optim.Optimizer):
    """Takes the steps that ``Subspace`` describes.

    Args:
        spec: the parts.
        parameters: by name.
        defaults: the knobs' values.
        seed: random choices come from its streams. It stands in the groups, so that a state that is loaded brings its own.
    """

    def __init__(self, spec: Subspace, parameters: Sequence[tuple[str, nn.Parameter]], defaults: dict[str, float], seed: int) -> None:
        self._spec, parameters = spec, by_name(parameters)
        self._names = {parameter: name for name, parameter in parameters}
        #: what matrices of one shape share
        self.tables: dict[str, torch.Tensor] = {}
        chosen = [(name, parameter) for name, parameter in parameters if spec.projects(name, tuple(parameter.shape))]
        self._places = {parameter: Place(name, index, len(chosen), tables=self.tables) for index, (name, parameter) in enumerate(chosen)}
        super().__init__(decay_groups(parameters), {**defaults, "seed": seed})
        for group in self.param_groups:
            group["weight_decay"] = defaults["weight_decay"] * group[SCALES].get("weight_decay", 1.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step; a closure is not asked for."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._take(parameter, group["lr"], group["weight_decay"], group["seed"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, every tensor in the type that it was saved in (torch's own turns them into the parameter's)."""
        super().load_state_dict(state_dict)
        numbered = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, saved in state_dict["state"].items():
            parameter = numbered[number]
            for name, value in saved.items():
                where = "cpu" if name == "step" else parameter.device
                self.state[parameter][name] = value.detach().to(where, copy=True)

    def _take(self, w: nn.Parameter, lr: float, weight_decay: float, seed: int) -> None:
        state = self.state[w]
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32)
        state["step"] += 1
        update, factor = self._matrix_update(w, state, seed) if w in self._places else self._whole_update(w, state)
        self._move(w, update, lr * factor, 1.0 - lr * weight_decay, seed)

    def _whole_update(self, w: nn.Parameter, state: State) -> tuple[torch.Tensor, float]:
        """Return the update of this process's part of a parameter that is not projected, and its factor."""
        rule = self._spec.full
        assert w.grad is not None
        alone = rule.elementwise or not is_sharded(w)
        g = local_view(w.grad) if alone else gathered(w.grad)
        slots = Slots(state, "inner.")
        if len(state) == 1:
            slots.fill(rule.layout(tuple(g.shape)), g)
        direction = rule.direction(slots, g, int(state["step"]))
        return direction.raw if alone else local_part(direction.raw, w), direction.factor

    def _matrix_update(self, w: nn.Parameter, state: State, seed: int) -> tuple[torch.Tensor, float]:
        """Return the update of this process's part of a projected matrix, and its factor."""
        spec, step = self._spec, int(state["step"])
        assert w.grad is not None
        g = gathered(w.grad)
        turned = spec.projector.turns((g.shape[0], g.shape[1]))
        g = g.T if turned else g
        since = (step - 1) % spec.period if spec.period else step - 1
        place = dataclasses.replace(self._places[w], round=(step - 1) // spec.period if spec.period else 0, seed=seed)
        kept, inner, rest = Slots(state, "projector."), Slots(state, "inner."), Slots(state, "residual.")
        if step == 1:
            rest.fill(spec.residual.layout((g.shape[0], g.shape[1])), g)
        g = spec.residual.prepare(rest, g)
        if since == 0:
            self._free_rounds_before(step)
            self._refresh(kept, inner, g, place, first=step == 1)
        small = spec.projector.down(kept, g, place)
        direction = spec.inner.direction(inner, small, since + 1 if spec.moments == "reset" else step)
        lift = partial(spec.projector.up, kept, shape=(g.shape[0], g.shape[1]), place=place)
        update = spec.residual.update(rest, Split(g, small, direction, lift))
        update = update.T if turned else update
        return local_part(update, w) if is_sharded(w) else update, 1.0

    def _free_rounds_before(self, step: int) -> None:
        """Free the moments of matrices whose round is over and that have not come to this step: those whose turn begins must not wait for them."""
        if not isinstance(self._spec.projector, Cycles) or self._spec.period is None:
            return
        for other in self._places:
            reached = int(self.state[other]["step"]) if other in self.state else step
            if reached < step and reached % self._spec.period == 0:
                Slots(self.state[other], "inner.").fill({}, other)

    def _refresh(self, kept: Slots, inner: Slots, g: torch.Tensor, place: Place, first: bool) -> None:
        spec, shape = self._spec, (g.shape[0], g.shape[1])
        old = dict(kept)
        if first or spec.moments == "reset":
            kept.fill(spec.projector.layout(shape, place), g)
        spec.projector.refresh(kept, g, place)
        if first or spec.moments == "reset":
            inner.fill(spec.inner.layout(spec.projector.small(shape, place)), g)
            return
        if isinstance(spec.inner, Clears):
            spec.inner.clear(inner)
        if spec.moments == "rotate":
            turn = cast(Turns, spec.projector).turn(old, kept, place)
            cast(Rotates, spec.inner).rotate(inner, turn, spec.projector.small(shape, place))

    def _move(self, w: nn.Parameter, update: torch.Tensor, by: float, keep: float, seed: int) -> None:
        """w <- keep w - by update, or keep (w - by update). Where that is rounded at random it is rounded once: a decay is a small step as well."""
        spec, here = self._spec, local_view(w)
        random = spec.rounding == "stochastic" and here.dtype == torch.bfloat16
        moved, update = (here.float(), update.float()) if random else (here, update)
        if keep != 1.0 and spec.decay == "before":
            moved.mul_(keep)
        moved.sub_(update, alpha=by) if update.dtype == moved.dtype else moved.sub_((by * update).to(moved.dtype))
        if keep != 1.0 and spec.decay == "after":
            moved.mul_(keep)
        if random:
            stream = "/".join(["rounding", self._names[w], *map(str, place_of(w))])  # shards draw each their own
            draw = torch.Generator(here.device).manual_seed(derive(seed, stream, int(self.state[w]["step"])))
            here.copy_(Bf16().encode(moved, draw)["values"])
