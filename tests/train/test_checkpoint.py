"""Checkpoints: whole or refused by name; the one before is used; nothing half written counts; optimizer state comes back bit by bit."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.errors import CheckpointError
from outlay.optim import AdamW, Sgd, follow
from outlay.rng import torch_generator
from outlay.train import checkpoint
from outlay.train.checkpoint import (
    Snapshot,
    checkpoints,
    latest,
    load_checkpoint,
    optimizer_from_plain,
    optimizer_to_plain,
    prune,
    save_checkpoint,
)

FILES = ("manifest.json", "model.safetensors", "optimizer.safetensors", "state.json")


def snapshot(step: int) -> Snapshot:
    draw = torch_generator(step, "checkpoint test")
    model = {
        "w": torch.randn(5, 3, generator=draw),
        "half": torch.randn(4, generator=draw).to(torch.bfloat16),
        "ids": torch.arange(step, step + 4),
    }
    model["turned"] = torch.randn(6, 2, generator=draw).t()  # not contiguous
    plain = {"step": step, "cursor": {"cursor": 32 * step}, "losses": [0.1, 1 / 3, math.inf], "none": None, "text": "naïve ∞"}
    return Snapshot(
        {"model": model, "optimizer": {"0/step": torch.tensor(float(step)), "0/exp_avg": torch.randn(5, 3, generator=draw)}}, plain
    )


def same(one: Snapshot, other: Snapshot) -> bool:
    tensors = all(
        one.tensors[group].keys() == other.tensors[group].keys()
        and all(torch.equal(one.tensors[group][k], v) and one.tensors[group][k].dtype == v.dtype for k, v in other.tensors[group].items())
        for group in other.tensors
    )
    return tensors and one.tensors.keys() == other.tensors.keys() and one.plain == other.plain


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of steps 3, 20 and 100."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (3, 20, 100):
        save_checkpoint(folder, step, snapshot(step))
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(kept, tmp_path / "checkpoints"))


# ---- whole --------------------------------------------------------------------------------------------------------------------------


def test_what_was_saved_comes_back(kept: Path) -> None:
    assert [path.name for path in checkpoints(kept)] == ["step-00000003", "step-00000020", "step-00000100"]
    for path, step in zip(checkpoints(kept), (3, 20, 100), strict=True):
        assert sorted(file.name for file in path.iterdir()) == sorted(FILES)
        assert same(load_checkpoint(path), snapshot(step))
    path, newest, refused = latest(kept)
    assert path.name == "step-00000100" and same(newest, snapshot(100)) and refused == []


def test_a_group_without_tensors_has_no_file(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, Snapshot({"model": {"w": torch.ones(2)}, "optimizer": {}}, {}))
    assert not (path / "optimizer.safetensors").exists()
    assert load_checkpoint(path).tensors.keys() == {"model"}


def test_saving_a_step_again_replaces_it(folder: Path) -> None:
    other = snapshot(7)
    save_checkpoint(folder, 100, other)
    assert same(latest(folder)[1], other)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000003", "step-00000020", "step-00000100"]


# ---- torn or tampered with ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(file=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_a_changed_byte_is_refused_by_name_and_the_one_before_is_used(
    kept: Path, tmp_path_factory: pytest.TempPathFactory, file: str, where: float, change: int
) -> None:
    folder = Path(shutil.copytree(kept, tmp_path_factory.mktemp("changed") / "checkpoints"))
    victim = folder / "step-00000100" / file
    data = bytearray(victim.read_bytes())
    data[int(where * len(data))] ^= change
    victim.write_bytes(data)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(victim.parent)
    assert str(victim) in str(error.value)
    path, newest, refused = latest(folder)
    assert path.name == "step-00000020" and same(newest, snapshot(20))
    assert refused == [str(error.value)]
    shutil.rmtree(folder.parent)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", ["cut", "longer", "empty", "gone"])
def test_a_torn_file_is_refused_by_name(folder: Path, file: str, harm: str) -> None:
    victim = folder / "step-00000100" / file
    data = victim.read_bytes()
    if harm == "gone":
        victim.unlink()
    else:
        victim.write_bytes({"cut": data[:-1], "longer": data + b"\n", "empty": b""}[harm])
    with pytest.raises(CheckpointError, match=file):
        load_checkpoint(victim.parent)
    path, _, refused = latest(folder)
    assert path.name == "step-00000020"
    # what has no manifest was never committed, so there is nothing to refuse
    assert len(refused) == (0 if (file, harm) == ("manifest.json", "gone") else 1)


def test_every_refusal_is_told_and_without_a_whole_one_nothing_is_used(folder: Path) -> None:
    for step in ("00000100", "00000020"):
        (folder / f"step-{step}" / "state.json").write_text("{}")
    path, _, refused = latest(folder)
    assert path.name == "step-00000003"
    assert ["00000100" in refused[0], "00000020" in refused[1], len(refused)] == [True, True, 2]
    (folder / "step-00000003" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint in .* can be used: .*00000100.*; .*00000020.*; .*00000003.*model.safetensors"):
        latest(folder)


def test_without_any_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is none"):
        latest(tmp_path)


def test_another_format_is_refused_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="manifest.json has format 1, this version reads 2"):
        load_checkpoint(folder / "step-00000100")


def test_a_manifest_that_is_no_mapping_is_refused(folder: Path) -> None:
    for text in ("[]", "null", '{"step": 1}', '{"step": 1, "files": 3}', "\x00"):
        (folder / "step-00000100" / "manifest.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"manifest\.json"):
            load_checkpoint(folder / "step-00000100")


def test_a_manifest_with_digests_of_other_files_does_not_pass_for_its_own(folder: Path) -> None:
    """Whoever changes a file and its digest still lacks the seal over the manifest."""
    path = folder / "step-00000100"
    (path / "state.json").write_text("{}")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["state.json"] = checkpoint.hashlib.sha256(b"{}").hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, indent=1))
    with pytest.raises(CheckpointError, match=r"manifest\.json is not what was written"):
        load_checkpoint(path)


# ---- half written -------------------------------------------------------------------------------------------------------------------


def test_what_was_left_unfinished_is_not_seen_and_pruned(folder: Path) -> None:
    shutil.copytree(folder / "step-00000100", folder / ".incomplete-step-00000200")
    shutil.copytree(folder / "step-00000100", folder / ".incomplete-replaced-00000100")
    shutil.copytree(folder / "step-00000100", folder / "step-00000300")
    (folder / "step-00000300" / "manifest.json").unlink()  # as when a kill falls into removing it
    assert latest(folder)[0].name == "step-00000100"
    prune(folder, 2)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000020", "step-00000100"]


@pytest.mark.parametrize(("keep", "left"), [(1, ["step-00000100"]), (2, ["step-00000020", "step-00000100"]), (9, 3)])
def test_the_newest_are_kept(folder: Path, keep: int, left: Any) -> None:
    prune(folder, keep)
    names = [path.name for path in checkpoints(folder)]
    assert names == left or len(names) == left


def _failing(name: str, at: int) -> Callable[..., Any]:
    """A function of ``os`` that fails for want of room at its n-th call."""
    real, calls = getattr(os, name), iter(range(1000))

    def call(*arguments: Any, **named: Any) -> Any:
        if next(calls) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **named)

    return call


@pytest.mark.parametrize(("name", "at"), [("fsync", 0), ("fsync", 1), ("fsync", 2), ("fsync", 3), ("fsync", 4), ("rename", 0)])
def test_a_full_disk_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> None:
    before = {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with monkeypatch.context() as broken:
        broken.setattr(checkpoint.os, name, _failing(name, at))
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(folder, 200, snapshot(200))
    assert {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert len(list(folder.iterdir())) == 3
    save_checkpoint(folder, 200, snapshot(200))
    assert latest(folder)[0].name == "step-00000200"


def test_a_full_disk_while_replacing_keeps_the_one_that_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(checkpoint.os, "rename", _failing("rename", 1))
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(folder, 100, snapshot(7))
    assert same(latest(folder)[1], snapshot(100))


def test_nothing_in_a_checkpoint_is_executed(folder: Path) -> None:
    """Only tensors and JSON are read: a pickle in their place is refused even where its digest is right."""
    import pickle

    path = folder / "step-00000100"
    (path / "model.safetensors").write_bytes(pickle.dumps({"w": 1}))
    digests = {name: checkpoint.hashlib.sha256((path / name).read_bytes()).hexdigest() for name in FILES if name != "manifest.json"}
    (path / "manifest.json").write_bytes(checkpoint._manifest(100, digests))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_checkpoint(path)
    assert latest(folder)[0].name == "step-00000020"


# ---- optimizers ---------------------------------------------------------------------------------------------------------------------


def _parameters() -> list[tuple[str, torch.nn.Parameter]]:
    draw = torch_generator(0, "optimizer test")
    return [(name, torch.nn.Parameter(torch.randn(*shape, generator=draw))) for name, shape in (("a", (4, 3)), ("b", (3,)), ("c", (2, 2)))]


def _steps(parameters: list[tuple[str, torch.nn.Parameter]], optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        draw = torch_generator(step, "gradient")
        follow(optimizer, "lr", 0.1 / (1 + step))
        follow(optimizer, "weight_decay", 0.01 * step)
        for name, parameter in parameters:
            # one of them has no gradient at first, so that its state comes later than the others'
            parameter.grad = torch.randn(parameter.shape, generator=draw) if name != "c" or step > 1 else None
        optimizer.step()


@pytest.mark.parametrize("spec", [AdamW(), AdamW(fused=False, beta1=0.8), Sgd(), Sgd(nesterov=True)], ids=repr)
@pytest.mark.parametrize("saved_after", [0, 1, 3])
def test_optimizer_state_goes_through_a_checkpoint_bit_by_bit(spec: Any, saved_after: int, tmp_path: Path) -> None:
    whole, stopped, resumed = _parameters(), _parameters(), _parameters()
    _steps(whole, spec.build(whole), 0, 6)
    optimizer = spec.build(stopped)
    _steps(stopped, optimizer, 0, saved_after)
    tensors, groups = optimizer_to_plain(optimizer)
    weights = {name: p.detach().clone() for name, p in stopped}
    saved = load_checkpoint(save_checkpoint(tmp_path, 1, Snapshot({"model": weights, "optimizer": tensors}, {"groups": groups})))
    for name, parameter in resumed:
        parameter.data.copy_(saved.tensors["model"][name])
    other = spec.build(resumed)
    optimizer_from_plain(other, saved.tensors.get("optimizer", {}), saved.plain["groups"])
    again, groups_again = optimizer_to_plain(other)
    assert again.keys() == tensors.keys() and all(torch.equal(again[key], tensors[key]) for key in tensors)
    assert groups_again == groups
    _steps(resumed, other, saved_after, 6)
    for (name, one), (_, two) in zip(whole, resumed, strict=True):
        assert torch.equal(one, two), name


def test_optimizer_groups_are_plain_and_keep_their_kinds() -> None:
    optimizer = AdamW().build(_parameters())
    _, groups = optimizer_to_plain(optimizer)
    assert json.loads(json.dumps(groups)) is not None
    other = AdamW(beta1=0.5).build(_parameters())
    optimizer_from_plain(other, {}, json.loads(json.dumps(groups)))
    assert other.param_groups[0]["betas"] == (0.9, 0.95) and isinstance(other.param_groups[0]["betas"], tuple)
    assert other.param_groups[1]["scales"] == {"weight_decay": 0.0}


def test_state_of_other_groups_is_refused() -> None:
    _, groups = optimizer_to_plain(AdamW().build(_parameters()))
    with pytest.raises(ValueError, match="argument 2 is longer"):
        optimizer_from_plain(AdamW().build(_parameters()[:1]), {}, groups)
