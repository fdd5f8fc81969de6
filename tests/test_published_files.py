"""What a release publishes to the volume `static`: the file as it is now, and no other form of it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.stack import ROOT, Stack


@pytest.fixture(scope="module")
def release() -> ModuleType:
    """The one-shot service `release`, as a module."""
    spec = importlib.util.spec_from_file_location("release", ROOT / "uwsgi/start/release.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """What a release has collected, and what is published."""
    source, target = tmp_path / "collected", tmp_path / "published"
    source.mkdir()
    target.mkdir()
    return source, target


def test_a_file_that_is_no_longer_compressed_loses_its_old_forms(
    release: ModuleType, folders: tuple[Path, Path]
) -> None:
    """Nginx would serve them instead of the file, for thirty days."""
    source, target = folders
    for name in ("site.css", "site.css.gz", "site.css.br", "other.js.gz"):
        (source / name).write_text("old")
    release.publish(source, target)
    for name in ("site.css.gz", "site.css.br"):
        (source / name).unlink()
    (source / "site.css").write_text("new")
    release.publish(source, target)
    assert {file.name for file in target.iterdir()} == {"site.css", "other.js.gz"}
    assert (target / "site.css").read_text() == "new"


def test_a_file_that_has_not_changed_keeps_its_etag(release: ModuleType, folders: tuple[Path, Path]) -> None:
    source, target = folders
    (source / "site.css").write_text("same")
    release.publish(source, target)
    os.utime(target / "site.css", (1, 1))
    (source / "site.css").write_text("same")
    release.publish(source, target)
    assert (target / "site.css").stat().st_mtime == 1


def test_a_file_is_removed_only_if_no_release_published_it_lately(
    release: ModuleType, folders: tuple[Path, Path]
) -> None:
    source, target = folders
    (source / "kept.css").write_text("kept")
    release.publish(source, target)
    # As old as its content may be: it was published a moment ago.
    os.utime(target / "kept.css", (1, 1))
    before = (target / "kept.css").stat().st_ctime
    assert release.prune(target, before) == 0
    assert release.prune(target, before + 1) == 1


def test_what_a_killed_worker_left_of_an_upload_is_removed(release: ModuleType, tmp_path: Path) -> None:
    for name, modified in (("old.upload", 100), ("new.upload", 300)):
        (tmp_path / name).write_text("a part")
        os.utime(tmp_path / name, (modified, modified))
    release.remove_left_over(tmp_path, 200)
    assert [file.name for file in tmp_path.iterdir()] == ["new.upload"]


def test_what_was_published_by_mistake_can_be_removed(stack: Stack) -> None:
    """The command of docs/operations.md; nginx may keep an open file for ten seconds, if it was asked for."""
    release = ("run", "--rm", "-T", "--no-deps", "release")
    stack(*release, "sh", "-c", "cd /srv/published && echo secret >dump.0123456789ab.json && echo secret >dump.json")
    stack(*release, "find", "/srv/published", "-name", "dump*", "-delete")
    assert stack.get("/static/dump.json").status_code == stack.get("/static/dump.0123456789ab.json").status_code == 404
