"""The documentation's code is right: every recipe, bench and claim on its pages loads, and the Python of the pages on schedules runs."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import outlay
from outlay.bench import load_bench, load_claims, load_workload
from outlay.catalog import methods_of
from outlay.errors import InputError
from outlay.record import Record
from outlay.reporting.terminal import Quiet
from outlay.train import load_recipe
from outlay.train.pipeline import load_pipeline
from outlay.train.recipe import LOOP_KNOBS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, text[: match.start()].count("\n") + 1, match[1], match[2]) for match in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
YAML = [block for block in BLOCKS if block.language == "yaml"]


def written(block: Block, folder: Path) -> Path:
    """The block as a file, called as its first line says when that is a comment with a file's name."""
    named = re.match(r"# (\S+\.yaml)\b", block.text)
    path = folder / (named[1] if named else "block.yaml")
    path.write_text(block.text, encoding="utf-8")
    return path


def recipe(block: Block, folder: Path) -> None:
    load_recipe(written(block, folder))


def pipeline(block: Block, folder: Path) -> None:
    load_pipeline(written(block, folder))


def workload(block: Block, folder: Path) -> None:
    made = load_workload(str(written(block, folder)))
    load_recipe({**made.recipe, "budget": str(made.full)})


def bench(block: Block, folder: Path) -> None:
    beside = [other for other in YAML if other.page == block.page and kind(other) is workload]
    for other in beside:
        written(other, folder)
    load_bench(written(block, folder))


def claims(block: Block, folder: Path) -> None:
    assert load_claims(written(block, folder))


def knobs(block: Block, folder: Path) -> None:
    """A piece of a stage: its knobs or its optimizer, put into one."""
    stage: dict[str, Any] = {"source": {"images": {"name": "digits"}}, "objective": "classification", **yaml.safe_load(block.text)}
    load_recipe({"budget": "10 steps", "model": {"mlp": {"inputs": 64, "classes": 10}}, "stages": [stage]})


#: what marks a kind of block -> how it is checked
KINDS: dict[str, Callable[[Block, Path], None]] = {
    r"^legs:": pipeline, r"^budget:": recipe, r"^full:": workload, r"^methods:": bench, r"^  says:": claims, r"^(knobs|optimizer):": knobs,
}  # fmt: skip


def kind(block: Block) -> Callable[[Block, Path], None]:
    return next(check for mark, check in KINDS.items() if re.search(mark, block.text, re.MULTILINE))


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the run has been made whose journal a recipe of the page reads; the working directory of the test."""
    monkeypatch.chdir(tmp_path)
    before = next(block for block in YAML if "measure: [gradient_l1]" in block.text and kind(block) is recipe)
    folder = tmp_path / "asked"
    folder.mkdir()
    outlay.run(load_recipe(written(before, folder), budget="8 steps"), "runs/first-1")
    return folder


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_on_a_page_is_accepted(block: Block, logged: Path) -> None:
    kind(block)(block, logged)


def test_a_page_with_a_mistake_would_be_found(logged: Path) -> None:
    right = next(block for block in YAML if "then: rex" in block.text)
    wrong = Block(right.page, right.line, "yaml", right.text.replace("then: rex", "then: rexx"))
    assert wrong.text != right.text
    with pytest.raises(InputError, match=r"did you mean 'schedules/rex'"):
        kind(wrong)(wrong, logged)


@pytest.mark.parametrize("page", ["schedules.md", "knobs.md", "bench.md"])
def test_python_on_a_page_runs(page: str, logged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [block for block in BLOCKS if block.page.name == page]
    for block in mine:
        if block.language == "yaml" and kind(block) in (workload, bench):  # the bench, cut to what a test can bear
            text = re.sub(r"^(full: )200", r"\g<1>8", block.text, flags=re.MULTILINE)
            for there, here in (("seeds: 3", "seeds: 2"), ("tries: 4", "tries: 2"), ("shares: [0.1, 0.25, 0.5, 1]", "shares: [0.5, 1]")):
                assert there in text or kind(block) is workload
                text = text.replace(there, here)
            written(Block(block.page, block.line, "yaml", text), Path.cwd())
    space: dict[str, Any] = {"__name__": page}
    python = [block for block in mine if block.language == "python"]
    assert python
    for block in python:
        exec(compile(block.text, str(block), "exec"), space)
        printed = capsys.readouterr().out.splitlines()
        for line in re.findall(r"^print\(.*\)  # (.*)$", block.text, re.MULTILINE):  # what the page says that is printed
            assert line in printed
    if page == "schedules.md":
        _goes_on(space["go_on"])
    elif page == "knobs.md":
        assert {"batch_size", "resolution", "lr"} <= set(space["knobs"])
        assert outlay.run(space["recipe"], "runs/multigrid").ended_by == "flops"
    else:
        assert [cell.method for cell in space["study"].cells()].count("rex") == 2 * 2


class _StopAt(Quiet):
    """Stops a run in good order after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, record: Record, spent: Mapping[str, float], share: float, seconds_left: float | None) -> None:
        if record.step == self.steps:
            os.kill(os.getpid(), signal.SIGTERM)


def _goes_on(go_on: Callable[[str, str], outlay.Result]) -> None:
    """The page's way to a larger budget: what a stopped run had done is what it would have done under the larger one."""
    knob = {"peak": 0.01, "schedule": {"open_ended": {"schedule": {"hold": {"warmup": 5}}, "decay": 0.25, "shape": "linear"}}}
    stage = {"source": {"images": {"name": "digits"}}, "objective": "classification", "knobs": {"lr": knob}}
    plain = {"model": {"mlp": {"inputs": 64, "classes": 10}}, "stages": [stage], "checkpoints": {"every_steps": 1}, "threads": 1}
    result = outlay.run(load_recipe({**plain, "budget": "20 steps"}), "runs/stopped", display=_StopAt(10))
    assert (result.ended_by, result.steps) == ("signal", 10)
    assert go_on("runs/stopped", "40 steps").steps == 40
    outlay.run(load_recipe({**plain, "budget": "40 steps"}), "runs/long")
    ends = [Path(run, "model", "model.safetensors").read_bytes() for run in ("runs/stopped", "runs/long")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("family", ["schedules", "open_ended", "controllers"])
def test_every_method_has_its_row_on_the_page_with_its_paper(family: str) -> None:
    rows = [line for line in (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = {re.match(r"\| `(\w+)`", row)[1]: row for row in rows}  # type: ignore[index]
    for name, cls in methods_of(family).items():
        assert name in named, f"docs/schedules.md has no row for {family}/{name}"
        paper = getattr(cls, "paper", None)
        assert paper is None or f"(https://arxiv.org/abs/{paper.arxiv})" in named[name]


def test_every_knob_of_a_stage_has_its_row_on_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "knobs.md").read_text(encoding="utf-8"), re.MULTILINE)
    read = {name for family in ("optim", "objectives", "anchors") for cls in methods_of(family).values() for name in knobs_of(cls)}
    assert set(rows) == read | set(LOOP_KNOBS)


def knobs_of(cls: Any) -> Any:
    """Those of the class, or of an object with its defaults where they depend on its fields."""
    return cls().knobs if isinstance(cls.knobs, property) else cls.knobs
