"""Every optimizer in a whole run: one that is stopped and resumed ends at the weights of one that nobody stops."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from small_runs import DOCUMENTS, digits, plain_stage, result_of, weights
from test_mixture_runs import StopAt

from outlay.optim import METHODS
from outlay.optim.base import Spares
from outlay.train import load_recipe, resume, run

#: fields where a method has them; a period of 2, so that a run of 8 steps that is stopped at 4 goes on with a new subspace
FIELDS: dict[str, Any] = {"rank": 4, "density": 0.5, "period": 2, "history": 3, "momentum": 0.9, "feedback": True, "directions": 2}
STEPS, CUT = 8, 4


def fields(name: str) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(METHODS[name])}
    return {key: value for key, value in FIELDS.items() if key in names}


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_was_stopped_ends_at_the_same_bits(name: str, tmp_path: Path) -> None:
    spec = METHODS[name](**fields(name))
    rate = spec.knobs["lr"]
    # what never holds a whole gradient cannot be clipped, and what steps within the backward pass takes batches in one piece
    knobs: dict[str, Any] = {"lr": {"peak": rate}} if isinstance(spec, Spares) else {"lr": {"peak": rate}, "clip": 0.5}
    pieces = {} if isinstance(spec, Spares) and spec.whole_batch else {"micro_batch": 6}
    recipe = digits(
        budget=f"{STEPS} steps",
        model={"mlp": {"inputs": 64, "classes": 10, "hidden": [12, 8], "dropout": 0.1}},
        stages=[plain_stage(optimizer={name: fields(name)}, knobs=knobs, batch_size=16)],
        **pieces,
    )
    run(recipe, tmp_path / "whole")
    stopped = run(recipe, tmp_path / "cut", display=StopAt(CUT))
    assert (stopped.ended_by, stopped.steps) == ("signal", CUT)
    assert resume(tmp_path / "cut").steps == STEPS
    assert weights(tmp_path / "whole") == weights(tmp_path / "cut")
    run(dataclasses.replace(recipe, name="half", budget=f"{CUT} steps"), tmp_path / "half")  # type: ignore[arg-type]
    assert weights(tmp_path / "half") != weights(tmp_path / "whole")


@pytest.mark.parametrize(
    "optimizer", [{"apollo": {"rank": 4, "period": 3}}, {"frugal": {"period": 3}}, {"per_layer": {"optimizer": "adamw_8bit"}}]
)
def test_a_llama_with_tied_weights(optimizer: dict[str, Any], tmp_path: Path) -> None:
    knobs: dict[str, Any] = {"lr": {"peak": 0.005}} | ({} if "per_layer" in optimizer else {"clip": 1.0})
    model = {"architecture": "llama", "hidden": 32, "layers": 1, "heads": 2, "context": 32, "tokenizer": "bytes", "tie_embeddings": True}
    plain = {
        "name": "tied",
        "budget": "12 steps",
        "model": {"transformer": model},
        "stages": [{
            "source": {"text": {"texts": list(DOCUMENTS), "length": 32, "held_out_share": 0.2}},
            "optimizer": optimizer,
            "batch_size": 8,
            "knobs": knobs,
        }],
        "evaluate": {"exams": [{"held_out_loss": {"examples": 16}}], "every": 0.5},
        "threads": 1,
    }  # fmt: skip
    plain |= {} if "per_layer" in optimizer else {"micro_batch": 3}
    run(load_recipe(plain), tmp_path / "whole")
    assert run(load_recipe(plain), tmp_path / "cut", display=StopAt(6)).steps == 6
    assert resume(tmp_path / "cut").steps == 12
    assert weights(tmp_path / "whole") == weights(tmp_path / "cut")
    assert result_of(tmp_path / "whole")["metrics"] == result_of(tmp_path / "cut")["metrics"]
    from safetensors.torch import load_file

    names = load_file(tmp_path / "whole" / "model" / "model.safetensors").keys()
    # one tensor for both, and it is the embedding's: nothing of the output layer is saved or stepped by itself
    assert any("embed" in name for name in names) and not any("lm_head" in name for name in names)
