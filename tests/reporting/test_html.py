"""The page: self-contained, escaped, small, and its sums are the journal's."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from made_runs import Made

from outlay.errors import InputError
from outlay.reporting.fold import Steps
from outlay.reporting.html import embed, render
from outlay.reporting.read import RunRecord, read_run

Make = Callable[..., Made]
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'single'"


class Page(HTMLParser):
    """What a browser sees of a page: elements, texts, tables by their key."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[tuple[str, list[float | None]]]] = {}
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._table: str | None = None
        self._head = False
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "table":
            self._table = attributes.get("data-table")
            self.tables.setdefault(self._table or "", [])
        elif tag == "tr" and self._table:
            self.tables[self._table].append(("", []))
        elif tag == "td" and self._table:
            raw = attributes.get("data-value")
            self.tables[self._table][-1][1].append(float(raw) if raw is not None else None)
        self._head = tag == "th" or (self._head and tag == "i")
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th", "p", "span", "div"}:
            self.texts.append(" ")
        self._head = self._head and tag == "i"
        self._script = False
        self._table = None if tag == "table" else self._table

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data
            return
        self.texts.append(data)
        if self._head and self._table and data.strip() and self.tables[self._table]:
            head, cells = self.tables[self._table][-1]
            self.tables[self._table][-1] = (head + data, cells)

    def rows(self, key: str) -> dict[str, list[float | None]]:
        return {head: cells for head, cells in self.tables[key] if cells}

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def page_of(*runs: RunRecord) -> Page:
    return Page(render(runs))


def test_sums_of_the_tables_are_the_journal(make: Make) -> None:
    made = make(steps=80, killed_at=(31,), price={"usd": 0.001, "per": "seconds"})
    run = read_run(made.path)
    page = page_of(run)
    accounts = page.rows("accounts")
    units = list(run.spent)
    for account, book in made.book.accounts.items():
        cells = accounts.pop(account)
        for unit, value in zip(units, cells[:-1], strict=True):
            wanted = 0.001 * book.get("seconds", 0.0) if unit == "usd" else book.get(unit, 0.0)
            assert value == pytest.approx(wanted, abs=1e-12), (account, unit)
        assert cells[-1] == pytest.approx(book.get("seconds", 0.0) / made.book.spent("seconds"))
    total = accounts.pop("all accounts")
    assert accounts == {}
    assert total[units.index("tokens")] == pytest.approx(made.book.spent("tokens"))
    assert total[units.index("seconds")] == pytest.approx(made.book.spent("seconds"))
    stages = page.rows("stages-time")
    for account, cells in stages.items():
        assert sum(cell or 0.0 for cell in cells[:-1]) == pytest.approx(cells[-1])
        if account != "all accounts":
            assert cells[-1] == pytest.approx(made.book.accounts[account]["seconds"])
            column = list(run.by_stage).index("sft")
            assert cells[column] == pytest.approx(made.book.by_stage["sft"].get(account, {}).get("seconds", 0.0))
    assert stages["all accounts"][-1] == pytest.approx(made.book.spent("seconds"))
    said = next(attributes for _, attributes in page.elements if "data-spent" in attributes)
    assert float(said["data-spent"] or 0) == pytest.approx(made.book.spent("seconds"))
    assert float(said["data-limit"] or 0) == made.limits["seconds"]


def test_stacked_bars_fill_the_budget(make: Make) -> None:
    page = render([read_run(make(steps=80, seconds=60.0).path)])
    whole = page[page.index('class="stack tall"') :]
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", whole[: whole.index("</div>")])]
    assert sum(widths) == pytest.approx(100, abs=0.02)
    assert "a-unspent" in whole[: whole.index("</div>")]


def test_page_reads_nothing_from_anywhere(make: Make) -> None:
    text = render([read_run(make("a", steps=30).path), read_run(make("b", steps=30, seed=2).path)])
    assert "http://" not in text and "https://" not in text and "@import" not in text and "url(" not in text
    page = Page(text)
    for _, attributes in page.elements:
        assert not {"src", "href", "srcset", "action", "onclick", "onerror"} & attributes.keys()
    assert {tag for tag, _ in page.elements}.isdisjoint({"link", "img", "iframe", "object", "embed", "base", "form"})


def test_content_security_policy_admits_our_script_alone(make: Make) -> None:
    page = page_of(read_run(make(steps=12).path))
    policy = (
        next(attributes["content"] for tag, attributes in page.elements if attributes.get("http-equiv") == "Content-Security-Policy") or ""
    )
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_everything_from_data_is_escaped(make: Make) -> None:
    made = make(steps=24, name=EVIL, metric_names=(EVIL,))
    lines = [json.loads(line) for line in made.book.lines]
    for line in lines:
        if line.get("stage") == "polish":
            line["stage"] = EVIL
        if "metrics" in line and line["kind"] == "evaluation":
            line["metrics"] = {EVIL: 1.0, f"{EVIL}/a/1": 0.5, "x/<b>/1": 0.1, **line["metrics"]}
        if "knobs" in line:
            line["knobs"] = {EVIL: 1.0}
        if "charged" in line and "data" in line["charged"]:
            line["charged"][EVIL] = line["charged"].pop("data")
        for key in ("message", "what", "why", "path", "device", "budget", "precision"):
            if key in line:
                line[key] = EVIL
    lines[0]["versions"] = {EVIL: EVIL}
    (made.path / "journal.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (made.path / "recipe.yaml").write_text(EVIL)
    (made.path / "plan.json").write_text(json.dumps({"notes": [EVIL], "basis": EVIL, "memory": {EVIL: 1.0, "total": 1.0}, "ends_by": EVIL}))
    run = read_run(made.path)
    for runs in ([run], [run, replace(run, path=run.path.with_name(EVIL.replace("/", "")))]):
        text = render(runs)
        page = Page(text)
        assert [tag for tag, _ in page.elements].count("script") == 2 and "img" not in {tag for tag, _ in page.elements}
        assert not any("onerror" in attributes for _, attributes in page.elements)
        assert page.text.count("alert(1)") > 8
        data = json.loads(page.scripts[0])
        assert EVIL in data["runs"][0]["name"] and f"metrics/{EVIL}" in {name.removesuffix("~") for name in data["runs"][0]["series"]}
        assert "alert" not in page.scripts[1]


def test_embedded_json_cannot_close_its_element() -> None:
    value = {"name": EVIL, "comment": "<!-- <script>", "line": "\u2028"}
    text = embed(value)
    assert "<" not in text and ">" not in text and "&" not in text
    assert json.loads(text) == value


def big_run(run: RunRecord, steps: int, columns: int) -> RunRecord:
    """A run of many steps with many noisy columns."""
    rng = random.Random(0)
    noise = [rng.gauss(1.0, 0.3) for _ in range(steps)]
    rolled = {f"column_{k}": noise[k:] + noise[:k] for k in range(columns)}
    spent = {unit: [(i + 1) * 1.2345678 for i in range(steps)] for unit in run.spent}
    many = Steps(
        list(range(1, steps + 1)),
        ["sft"] * steps,
        [0.5] * steps,
        [i / steps for i in range(steps)],
        noise,
        noise[::-1],
        [False] * steps,
        spent,
        dict(list(rolled.items())[:8]),
        dict(list(rolled.items())[8:]),
    )
    return replace(run, steps=many)


def test_a_hundred_thousand_steps_stay_below_two_megabytes(make: Make) -> None:
    run = big_run(read_run(make("a", steps=40).path), 100_000, 30)
    one = render([run])
    assert 400_000 < len(one.encode()) < 2_000_000
    series = json.loads(Page(one).scripts[0])["runs"][0]["series"]
    assert all(len(points["i"]) <= 1500 and points["i"][0] == 0 and points["i"][-1] == 99_999 for points in series.values())
    assert max(series["loss"]["y"]) == pytest.approx(max(value for value in run.steps.loss if value is not None), rel=1e-4)
    four = render([run, *(big_run(read_run(make(name, steps=40).path), 100_000, 30) for name in "bcd")])
    assert len(four.encode()) < 2_000_000


def test_rendering_is_quick(make: Make) -> None:
    run = big_run(read_run(make(steps=40).path), 5_000, 12)
    render([run])  # the template is compiled once
    began = time.process_time()
    render([run])
    assert time.process_time() - began < 0.3


def test_rendering_imports_nothing_heavy(make: Make) -> None:
    made = make(steps=12)
    code = (
        "import sys; from outlay.reporting import report; report([sys.argv[1]]);"
        "heavy = {'torch', 'matplotlib', 'pandas', 'transformers', 'scipy'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, str(made.path)], capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_different_budgets_are_warned_of(make: Make) -> None:
    a, b = read_run(make("a", steps=30, seconds=50.0).path), read_run(make("b", steps=30, seconds=60.0, seed=1, name="other").path)
    page = page_of(a, b)
    assert any("data-unfair" in attributes for _, attributes in page.elements)
    assert "The budgets differ" in page.text and "arithmetic-sft: 50.0s, 2.00 GiB; other: 1m 00s, 2.00 GiB" in page.text


def test_equal_budgets_are_compared_and_the_best_marked(make: Make) -> None:
    a, b = (
        read_run(make("a", steps=40, seconds=50.0).path),
        read_run(make("b", steps=30, seconds=50.0, seed=1, peak=0.1, name="other").path),
    )
    text = render([a, b])
    page = Page(text)
    assert not any("data-unfair" in attributes for _, attributes in page.elements)
    assert "All runs had the same budget." in page.text
    row = page.rows("comparison")["exact_match"]
    assert row == [a.metrics_end["exact_match"], b.metrics_end["exact_match"]]
    best = max(row, key=lambda value: value or 0.0)
    assert re.findall(r'<td class="good" data-value="([\d.]+)">0\.0', text)[0] == str(best)
    assert "stages[0].peak 0.002 0.1" in " ".join(page.text.split())  # what differs between the recipes


def test_comparison_on_different_machines_is_warned_of(make: Make) -> None:
    a, b = read_run(make("a", steps=30, seconds=50.0).path), read_run(make("b", steps=30, seconds=50.0).path)
    other = replace(b, head={**b.head, "threads": 16})
    assert "different threads" in page_of(a, other).text
    limits = {"tokens": 1e6}
    counted = [replace(run, head={**run.head, "limits": limits}) for run in (a, other)]
    assert "different threads" not in page_of(*counted).text  # tokens buy the same work anywhere


def test_runs_of_one_name_are_told_apart(make: Make) -> None:
    a, b = read_run(make("first", steps=12).path), read_run(make("second", steps=12).path)
    names = [run["name"] for run in json.loads(page_of(a, b).scripts[0])["runs"]]
    assert names == ["arithmetic-sft (first)", "arithmetic-sft (second)"]
    assert [run["name"] for run in json.loads(page_of(a, a).scripts[0])["runs"]] == [
        "arithmetic-sft (first) #1",
        "arithmetic-sft (first) #2",
    ]


def test_lost_work_is_its_own_line(make: Make) -> None:
    made = make(steps=80, killed_at=(31,))
    text = page_of(read_run(made.path)).text
    assert f"Lost work: {made.lost['seconds']:.1f}s, {made.lost['steps']:.0f} steps" in text
    assert "Lost work" not in page_of(read_run(make("b", steps=12).path)).text


def test_unfinished_run_says_so(make: Make) -> None:
    text = page_of(read_run(make(steps=30, finished=False).path)).text
    assert "has not ended" in text


def test_failed_run_tells_why(make: Make) -> None:
    made = make(steps=12)
    journal = made.path / "journal.jsonl"
    ended, failed = '"seconds", "message": "its seconds were spent"', '"failure", "message": "no luck"'
    journal.write_text(journal.read_text().replace(ended, failed))
    text = page_of(read_run(made.path)).text
    assert "failed" in text and "no luck" in text


def test_run_without_steps_can_be_shown(make: Make) -> None:
    made = make(steps=12)
    (made.path / "journal.jsonl").write_text(made.book.lines[0] + "\n")
    for name in ("result.json", "plan.json", "recipe.yaml"):
        (made.path / name).unlink()
    page = page_of(read_run(made.path))
    assert page.rows("accounts")["all accounts"][-1] == 1.0
    assert not any(tag == "figure" for tag, _ in page.elements)


def test_plan_stands_against_actual(make: Make) -> None:
    made = make(steps=80)
    run = read_run(made.path)
    plan = page_of(run).rows("plan")
    assert plan["steps"] == [94, 80, pytest.approx(80 / 94)]
    assert plan["tokens"] == [
        run.plan and run.plan["tokens"],
        made.book.spent("tokens"),
        pytest.approx(made.book.spent("tokens") / (2048 * 80 + 3e4)),
    ]
    seconds = made.book.accounts["train"]["seconds"] / 80
    assert plan["time a step"] == [0.11, pytest.approx(seconds), pytest.approx(seconds / 0.11)]
    assert plan["kept back to finish (time)"][1] == pytest.approx(0.21 + 1.6 + 0.2)
    assert plan["peak memory"][:2] == [1.078e8, None]
    measured = replace(run, result={**(run.result or {}), "peak_memory": 2.156e8})
    assert page_of(measured).rows("plan")["peak memory"] == [1.078e8, 2.156e8, 2.0]


def test_groups_are_shown_before_and_after(make: Make) -> None:
    run = read_run(make(steps=30).path)
    page = page_of(run)
    start, end = run.metrics_start["exact_match/gcd/2"], run.metrics_end["exact_match/gcd/2"]
    assert f"{start:.4g} → {end:.4g}" in page.text
    metrics = page.rows("metrics")
    assert metrics["exact_match"] == [
        run.metrics_start["exact_match"],
        run.metrics_end["exact_match"],
        pytest.approx(run.metrics_end["exact_match"] - run.metrics_start["exact_match"]),
    ]


def test_books_that_do_not_add_up_are_shown(make: Make) -> None:
    made = make(steps=30)
    result = json.loads((made.path / "result.json").read_text())
    result["spent"]["seconds"] += 3.0
    (made.path / "result.json").write_text(json.dumps(result))
    assert "journal's charges sum to" in page_of(read_run(made.path)).text


def test_log_tells_decisions_with_their_reason(make: Make) -> None:
    text = page_of(read_run(make(steps=80, killed_at=(31,)).path)).text
    for part in ("micro-batch 32 memory ceiling 2 GiB: 64 would need 2.3 GiB", "from step 20", "step 37: the gradient was not finite"):
        assert part in text


def test_figures_name_what_they_draw(make: Make) -> None:
    run = read_run(make(steps=80).path)
    page = page_of(run)
    data: dict[str, Any] = json.loads(page.scripts[0])["runs"][0]
    drawn = [attributes for tag, attributes in page.elements if tag == "figure"]
    assert {attributes["data-series"] for attributes in drawn} == {
        "loss",
        "gradient_norm",
        "exact_match",
        "loss/held_out",
        "knobs/lr",
        "knobs/batch",
        "metrics/accuracy",
    }
    for attributes in drawn:
        source = data["series"] if attributes["data-kind"] == "step" else data["evaluations"]["metrics"]
        assert attributes["data-series"] in source
    options = {attributes["value"] for tag, attributes in page.elements if tag == "option"}
    assert options == set(data["evaluations"]["metrics"])


def test_a_page_needs_a_run() -> None:
    with pytest.raises(InputError, match="at least one run"):
        render([])
