"""A release is named after its time and the revision of the project, wherever that lies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops import releases, stack
from tests.support.stack import run

AUTHOR = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")


def revision(folder: Path) -> str:
    """Return the revision at which a repository is."""
    return run("git", "rev-parse", "--short", "HEAD", cwd=folder).stdout.strip()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that is a repository of its own, named as PROJECT_DIR."""
    (tmp_path / "manage.py").write_text("")
    for words in (["init", "--quiet"], ["add", "."], [*AUTHOR, "commit", "--quiet", "--message", "First"]):
        assert run("git", *words, cwd=tmp_path).returncode == 0
    monkeypatch.setattr(stack, "settings", lambda: stack.Settings(app=str(tmp_path)))
    return tmp_path


def test_the_revision_is_that_of_the_project(elsewhere: Path) -> None:
    assert re.fullmatch(rf"[0-9]{{8}}-[0-9]{{6}}-{revision(elsewhere)}", releases.new_name())
    (elsewhere / "manage.py").write_text("changed\n")
    assert releases.new_name().endswith(f"-{revision(elsewhere)}-changed")


def test_without_a_repository_the_time_is_all(elsewhere: Path) -> None:
    (elsewhere / ".git").rename(elsewhere / "no-repository")
    assert re.fullmatch(r"[0-9]{8}-[0-9]{6}", releases.new_name())
