"""The contract of models."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from outlay.models.base import Loaded, ModelSpec
from outlay.rng import torch_generator
from outlay.testing.common import global_generators_untouched, hold, same


def check_model(spec: ModelSpec, inputs: torch.Tensor | None = None, drawn: bool = True) -> None:
    """Check the model seam: weights from the seed alone, and a saved folder that computes the same.

    Args:
        spec: what is checked.
        inputs: first argument of the model's call; None for random tokens of a language model.
        drawn: whether the weights are drawn from the seed; False where they are loaded from files.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    name = type(spec).__name__
    loaded = spec.build(3)  # outside, since it may import packages, and some of those draw as they are imported
    with global_generators_untouched(name):
        other = spec.build(4).module.state_dict()
        again = spec.build(3).module.state_dict()
    weights = loaded.module.state_dict()
    hold(same(weights, again), "the same seed gives the same weights", f"{name} built twice differs")
    if drawn:
        hold(not same(weights, other), "another seed gives other weights", f"{name} gave the same for two seeds")
    if inputs is None:
        hold(loaded.tokenizer is not None, "a model without a tokenizer is checked with inputs", f"{name} has none; pass inputs")
        inputs = torch.randint(len(loaded.tokenizer), (2, 8), generator=torch_generator(0, "contracts/inputs"))
    with TemporaryDirectory() as folder:
        loaded.save(loaded.module, Path(folder))
        restored = _restored(spec, Path(folder))
    expected, found = _outputs(loaded, inputs), _outputs(restored, inputs)
    hold(torch.equal(expected, found), "a saved model computes the same", f"{name} is off by {float((expected - found).abs().max()):.3g}")


def _restored(spec: ModelSpec, folder: Path) -> Loaded:
    """Load a saved folder the way its library does: transformers' by its configuration, a plain module into one built anew."""
    if (folder / "config.json").exists():
        from outlay.models.pretrained import Pretrained
        from outlay.models.reward_model import RewardModel

        if "ForSequenceClassification" in (folder / "config.json").read_text():
            return RewardModel(path=str(folder)).build(0)

        return Pretrained(str(folder)).build(0)
    from safetensors.torch import load_model

    fresh = spec.build(5)
    load_model(fresh.module, str(folder / "model.safetensors"))
    return fresh


def _outputs(loaded: Loaded, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        output = loaded.module.eval()(inputs)
    tensor: torch.Tensor = output if isinstance(output, torch.Tensor) else output.logits
    return tensor
