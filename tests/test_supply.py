"""What the images hold can be told, and an update of it is found."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.support.checkout import Checkout
from tests.support.stack import ROOT, Stack, run
from tools import supply


def bills_of_materials(stack: Stack, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Write the bill of materials of each image of a stack, and return the folder in which they are."""
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", stack.project)
    monkeypatch.setattr(supply, "ROOT", folder)
    monkeypatch.setattr(supply, "SBOM", folder / "sbom")
    supply.sbom()
    return supply.SBOM


@pytest.mark.one_transport
def test_bill_of_materials_names_what_is_in_the_images(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = bills_of_materials(stack, monkeypatch, tmp_path)
    found = {}
    for service in supply.SERVICES:
        document = json.loads((written / f"{service}.cdx.json").read_text())
        assert document["bomFormat"] == "CycloneDX"
        found[service] = {one["purl"].partition("?")[0].partition("@")[0] for one in document["components"]}
    assert "pkg:deb/debian/nginx" in found["nginx"]
    assert {"pkg:pypi/django", "pkg:pypi/uwsgi", "pkg:deb/debian/libc6"} <= found["uwsgi"]
    assert "pkg:pypi/uwsgi" in found["uwsgi-socket"]
    assert "pkg:pypi/django" not in found["uwsgi-socket"]


@pytest.mark.slow
@pytest.mark.needs_sample
def test_a_newer_version_is_found_and_locked_with_its_hashes(tmp_path: Path) -> None:
    """With the newest lock nothing is found; with an old one, what is new, and then it is up to date again."""
    checkout = Checkout(tmp_path, "supply")
    lock = tmp_path / "app/requirements.txt"
    for other in supply.locked():  # locked in the same way, and each takes its time
        if other != "app/requirements.in":
            (tmp_path / other).unlink()
    code = "import tools.supply as s; s.relock()"

    def found() -> str:
        done = run(sys.executable, "-c", code, cwd=checkout.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    found()
    newest = lock.read_text()
    assert found() == ""
    lock.write_text(re.sub(r"^django==[\d.]+", "django==6.1.0", newest, flags=re.MULTILINE))
    assert re.search(r"^app/requirements\.txt: django 6\.1\.0 -> 6\.\d+\.\d+$", found(), re.MULTILINE)
    assert lock.read_text() == newest
    assert newest.count("--hash=sha256:") > 5


def test_locks_are_made_from_what_is_asked_for() -> None:
    """Every package of a requirements.in is in its lock, and every line of a lock has hashes."""
    for file in supply.locked():
        asked = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
        locked = supply.versions(supply.lock_of(file).read_text())
        names = {re.split(r"[<>=~! ]", line)[0].lower().replace("_", "-") for line in asked}
        assert names <= {name.lower() for name in locked}, file
        assert supply.lock_of(file).read_text().count("--hash=") >= len(locked)
