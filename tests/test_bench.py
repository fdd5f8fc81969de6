"""`make bench` measures, reports and judges."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import Checkout
from tests.support.stack import run
from tools.bench import report
from tools.bench.targets import OURS, PROCESS, SYNC, TARGETS, measured, paired


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a quick run in a checkout of its own writes down."""
    site = Checkout(tmp_path_factory.mktemp("bench"), "bench")
    done = run("make", "bench", "QUICK=1", seconds=580, cwd=site.folder, environment=site.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    message = done.stdout
    assert f"\n{SYNC} " in message
    assert "goal" not in message, "our targets are not for the reader of the report"
    results = site.folder / "tools/bench/results"
    page = (results / "report.html").read_text()
    assert OURS in page
    assert "goal" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "<script src=" not in page, "the page loads nothing from elsewhere"
    read: dict[str, Any] = json.loads((results / "results.json").read_text())
    return read


@pytest.mark.slow
@pytest.mark.timeout(600)  # images of the peers, if there are none
def test_a_quick_run_measures_every_variant_without_an_error(document: dict[str, Any]) -> None:
    found = {one["variant"] for one in document["samples"]}
    assert found == {OURS, f"{OURS}, again", "ours, TCP", SYNC, PROCESS}
    assert [one for one in document["samples"] if one["errors"] or one["rate"] <= 0 or one["cpu"] <= 0] == []


@pytest.mark.slow
@pytest.mark.timeout(600)  # images of the peers, if there are none
def test_it_says_what_was_measured_and_where(document: dict[str, Any]) -> None:
    assert document["versions"]["uwsgi"] == "2.0.31"
    assert document["machine"]["cores"] > 0


def sample(variant: str, number: int, rate: float) -> dict[str, Any]:
    """Return a figure as a run writes it."""
    return {"variant": variant, "route": "empty", "round": number, "rate": rate, "cpu": 1.0, "errors": 0}


def test_ratios_are_of_the_same_round() -> None:
    """A machine that slows down between two rounds must not look like a slow server."""
    document = {"samples": [sample(OURS, 0, 200), sample(SYNC, 0, 100), sample(SYNC, 1, 10), sample(OURS, 1, 20)]}
    assert paired(document, OURS, SYNC, "empty").values == [2.0, 2.0]


@pytest.mark.parametrize("faster", [0.1, 100])
def test_a_target_that_is_missed_is_seen(faster: float) -> None:
    document = {"samples": [sample(OURS, 0, faster), sample(SYNC, 0, 1.0)]}
    (target, _), *others = measured(document)
    assert target is TARGETS[0]
    assert others == []
    assert target.holds(document) == (faster > 1)
    assert target.reached(document) == (faster > 1)
    assert ("NO" in report.judgement(document)) == (faster < 1)
    assert target.name not in report.text(document)


def test_the_exit_code_is_the_judgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tools.bench import __main__ as bench  # noqa: PLC0415

    slow = {"date": "", "machine": {}, "versions": {}, "samples": [sample(OURS, 0, 0.1), sample(SYNC, 0, 1.0)]}
    monkeypatch.setattr(bench.Run, "measure", lambda _: slow)
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    assert bench.run([]) == 0
    assert TARGETS[0].name not in capsys.readouterr().out
    assert bench.run(["--check"]) == 1
    assert f"1 bounds crossed: {TARGETS[0].name}" in capsys.readouterr().out
