"""Checkpoints: written aside, synced, committed by a manifest of digests, renamed. Nothing in them is executed when they are read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from outlay.errors import CheckpointError

FORMAT = 1
_MANIFEST = "manifest.json"
_STATE = "state.json"


@dataclass
class Snapshot:
    """All that a run needs to go on: named groups of tensors (model, optimizer) and plain values."""

    tensors: dict[str, dict[str, torch.Tensor]]
    plain: dict[str, Any]


def save_checkpoint(folder: Path, step: int, snapshot: Snapshot) -> Path:
    """Write a checkpoint and return its directory. It counts only once it is complete: until the last rename, readers do not see it.

    Raises:
        OSError: when the disk is full or fails; what was written is removed, earlier checkpoints are untouched.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    final, aside = folder / f"step-{step:08d}", folder / f".incomplete-step-{step:08d}"
    replaced = folder / f".incomplete-replaced-{step:08d}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        digests = {}
        for group, tensors in snapshot.tensors.items():
            if tensors:
                data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
                digests[f"{group}.safetensors"] = _write(aside / f"{group}.safetensors", data)
        digests[_STATE] = _write(aside / _STATE, json.dumps(snapshot.plain, allow_nan=True).encode())
        _write(aside / _MANIFEST, _manifest(step, digests))
        _sync_folder(aside)
        shutil.rmtree(replaced, ignore_errors=True)
        if final.exists():  # a run that was resumed comes by the same step again
            os.rename(final, replaced)
        os.rename(aside, final)
        _sync_folder(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        if replaced.exists() and not final.exists():
            os.rename(replaced, final)
        raise
    return final


def write_aside(path: Path, data: bytes) -> None:
    """Write a file aside, sync it and rename it, so that it is there whole or not at all.

    Raises:
        OSError: when the disk is full or fails.
    """
    aside = path.with_name(f".incomplete-{path.name}")
    _write(aside, data)
    os.rename(aside, path)
    _sync_folder(path.parent)


def load_checkpoint(path: Path) -> Snapshot:
    """Read a checkpoint after checking every file against the manifest.

    Raises:
        CheckpointError: naming the file that is missing, torn or changed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    manifest = _read_manifest(path)
    contents = {name: _checked(path / name, digest) for name, digest in manifest["files"].items()}
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    state: dict[str, Any] = {}
    for name, data in contents.items():
        try:
            if name == _STATE:
                state = json.loads(data)
            else:
                tensors[name.removesuffix(".safetensors")] = load(data)
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{path / name} cannot be read ({error}); the checkpoint is not used") from error
    return Snapshot(tensors, state)


def checkpoints(folder: Path) -> list[Path]:
    """Return the committed checkpoints of a run's checkpoint folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / _MANIFEST).is_file())


def latest(folder: Path) -> tuple[Path, Snapshot, list[str]]:
    """Return the newest checkpoint that is whole, what it holds, and why newer ones were refused.

    Raises:
        CheckpointError: when none is whole.
    """
    refused: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            return path, load_checkpoint(path), refused
        except CheckpointError as error:
            refused.append(str(error))
    why = "; ".join(refused) or "there is none"
    raise CheckpointError(f"no checkpoint in {folder} can be used: {why}")


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints, and what earlier processes left unfinished."""
    for old in checkpoints(folder)[:-keep]:
        (old / _MANIFEST).unlink(missing_ok=True)  # first, so that a kill here leaves nothing that looks whole
        shutil.rmtree(old, ignore_errors=True)
    for torn in folder.glob(".incomplete-*"):
        shutil.rmtree(torn, ignore_errors=True)
    for torn in folder.glob("step-*"):
        if not (torn / _MANIFEST).is_file():
            shutil.rmtree(torn, ignore_errors=True)


def _manifest(step: int, digests: dict[str, str]) -> bytes:
    body = {"format": FORMAT, "step": step, "files": digests}
    seal = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "seal": seal}, sort_keys=True, indent=1).encode()


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / _MANIFEST
    try:
        raw = file.read_bytes()
        manifest: dict[str, Any] = json.loads(raw)
        whole = raw == _manifest(manifest["step"], manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} cannot be read ({type(error).__name__}); the checkpoint is not used") from error
    if not whole:
        found = manifest.get("format")
        why = f"has format {found}, this version reads {FORMAT}" if found != FORMAT else "is not what was written"
        raise CheckpointError(f"{file} {why}; the checkpoint is not used")
    return manifest


def _checked(file: Path, digest: str) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}); the checkpoint is not used") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{file} is not what was written (its SHA-256 differs from the manifest's); the checkpoint is not used")
    return data


def _write(file: Path, data: bytes) -> str:
    with open(file, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return hashlib.sha256(data).hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---- optimizer state as tensors and plain values ---------------------------------------------------------------------------------------


def optimizer_to_plain(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Return an optimizer's state as tensors named ``<parameter number>/<key>``, its groups' tensors as ``group/<number>/<key>``, and the groups'
    plain fields."""
    state = optimizer.state_dict()
    tensors = {
        f"{number}/{key}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for number, entries in state["state"].items()
        for key, value in entries.items()
        if value is not None
    }
    for number, group in enumerate(state["param_groups"]):
        tensors |= {f"group/{number}/{key}": value for key, value in group.items() if isinstance(value, torch.Tensor)}
    groups = [{key: value for key, value in group.items() if _is_plain(value)} for group in state["param_groups"]]
    return tensors, groups


def optimizer_from_plain(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], groups: list[dict[str, Any]]) -> None:
    """Load what ``optimizer_to_plain`` returned into an optimizer of the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    of_groups: list[dict[str, torch.Tensor]] = [{} for _ in groups]
    for name, tensor in tensors.items():
        number, _, key = name.partition("/")
        if number == "group":
            number, _, key = key.partition("/")
            of_groups[int(number)][key] = tensor.clone().to(optimizer.param_groups[int(number)]["params"][0].device)
            continue
        state.setdefault(int(number), {})[key] = tensor.clone()  # the optimizer would write into the snapshot
    mine = optimizer.state_dict()["param_groups"]
    merged = [
        # what the optimizer has added since the state was saved must not outlive it
        {
            key: value
            for key, value in group.items()
            if key in optimizer.defaults or not (_is_plain(value) or isinstance(value, torch.Tensor))
        }
        | {key: _like(group.get(key), value) for key, value in saved.items()}
        | its
        for group, saved, its in zip(mine, groups, of_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": merged})


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    return value is None or isinstance(value, bool | int | float | str)


def _like(old: Any, new: Any) -> Any:
    return tuple(new) if isinstance(old, tuple) else new
