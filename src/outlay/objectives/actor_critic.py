"""Actor and critic: the policy gradient with a value head that is trained beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from outlay.advantages import Advantage, Generalised, Learns, Whitened
from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.objectives.base import at_least_single
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.rng import torch_generator
from outlay.schedules.base import require
from outlay.sequences import attached, chosen_logits, evaluating, in_pieces, knob, shifted
from outlay.sources.base import Batch


def _estimated() -> Advantage:
    return Whitened(Generalised())


@dataclass(frozen=True)
class ActorCritic(PolicyGradient):
    """The policy gradient's loss + critic * aggregate_t[ max((V - R)^2, (clip(V, V_old - value_clip, V_old + value_clip) - R)^2) / 2 ].

    V is a linear head on the model's last hidden state, one number for each position, and R what the advantage says that it should have been.
    The columns ``values`` (V_old) and ``returns`` (R), both (n, T), are worked out when the batch is prepared. Measures: ``value``, ``value_loss``.

    Args:
        critic: weight of the value loss, >= 0; knob ``critic``.
        value_clip: how far a value may move from V_old before its gradient is cut, > 0; None for no limit.
        shared: whether the value loss also trains the model under the head.
    """

    title: ClassVar[str] = "Policy gradient with a critic"
    paper: ClassVar[Paper | None] = Paper("1707.06347", "Proximal Policy Optimization Algorithms", 2017)

    advantage: Advantage = field(default_factory=_estimated)
    critic: float = 0.1
    value_clip: float | None = 0.2
    shared: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        served = isinstance(self.advantage, Learns) and self.advantage.needs_values
        require(served, f"a critic needs an advantage that says what it should learn, found {self.advantage!r}")
        require(self.critic >= 0, f"critic must be >= 0, found {self.critic}")
        require(self.value_clip is None or self.value_clip > 0, f"value_clip must be > 0, found {self.value_clip}")

    @property
    def knobs(self) -> Mapping[str, float]:
        """The anchors' coefficients and the value loss's."""
        return {**super().knobs, "critic": self.critic}

    @property
    def passes(self) -> float:
        """Forward passes over a batch that preparing takes: one more, for the values."""
        return super().passes + 1

    def attach(self, model: nn.Module, seed: int) -> nn.Module:
        """Return the value head, hidden size -> 1, with weights N(0, 1 / (hidden + 1)) of the stream (seed, "critic").

        Raises:
            InputError: when the model does not say how wide its last hidden state is.
        """
        size = getattr(getattr(model, "config", None), "hidden_size", None)
        if size is None:
            raise InputError("a critic needs a model whose config names its hidden_size, and that returns hidden_states when asked")
        head, draw = nn.Linear(int(size), 1), torch_generator(seed, "critic")
        with torch.no_grad():
            head.weight.normal_(0.0, (size + 1) ** -0.5, generator=draw)
            head.bias.zero_()
        return head

    def thin(self, batch: Batch) -> Batch:
        """Return the batch as it is: the critic learns from every answer."""
        return batch

    def _advantages(self, model: nn.Module, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        with evaluating(model):
            values = torch.cat([self._values(model, _forward(model, piece)) for piece in in_pieces(batch, 64)])
        batch["values"] = functional.pad(torch.where(mask, values, 0.0), (1, 0))
        assert isinstance(self.advantage, Learns)  # refused otherwise when made
        batch["returns"] = functional.pad(self.advantage.returns(batch, mask, shaping), (1, 0))
        return super()._advantages(model, batch, mask, shaping)

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss and the measures of a prepared batch."""
        output = _forward(model, batch)
        loss, measures = self.judge(chosen_logits(output.logits, batch), batch, knobs)
        values = self._values(model, output)
        wrong = self._value_losses(values, batch)
        learnt = self.aggregated(wrong, batch)
        seen = {"value": self.averaged(values.detach(), batch), "value_loss": self.averaged(wrong.detach(), batch)}
        return loss + knob(knobs, "critic", self.critic) * learnt, measures | seen

    def _value_losses(self, values: torch.Tensor, batch: Batch) -> torch.Tensor:
        target = shifted(batch, "returns").to(values.dtype)
        wrong = (values - target) ** 2
        if self.value_clip is None:
            return wrong / 2
        before = shifted(batch, "values").to(values.dtype)
        near = before + (values - before).clamp(-self.value_clip, self.value_clip)
        return torch.maximum(wrong, (near - target) ** 2) / 2

    def _values(self, model: nn.Module, output: Any) -> torch.Tensor:
        head, hidden = attached(model), output.hidden_states[-1][:, :-1]
        weight = next(head.parameters())
        values: torch.Tensor = head((hidden if self.shared else hidden.detach()).to(weight.dtype)).squeeze(-1)
        return at_least_single(values)


def _forward(model: nn.Module, batch: Batch) -> Any:
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True)
