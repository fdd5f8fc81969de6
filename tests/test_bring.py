"""Data that exists is brought in by one command, which replaces nothing unless told, and keeps what it replaces."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ops import bring, change, front_page, stack
from ops.console import Stop
from tests.support.stack import ROOT, Stack
from tests.test_state import container, folder, running

__all__ = ["folder"]

USER = (
    "INSERT INTO auth_user (password, is_superuser, username, last_name, email, is_staff, is_active, date_joined,"
    " first_name) VALUES ('', 0, ?, '', '', 0, 1, '2026-01-01', '')"
)
FIXTURE = """[{"model": "auth.user", "fields": {"username": "brought-by-a-fixture"}}]"""
NAMES = "from django.contrib.auth.models import User; print(*User.objects.values_list('username', flat=True))"

pytestmark = pytest.mark.one_transport


def test_only_a_database_of_a_django_project_is_brought(tmp_path: Path) -> None:
    """A search index, or the database of another program, would take the place of the project's."""
    source, target = tmp_path / "search.db", tmp_path / "snapshot"
    with contextlib.closing(sqlite3.connect(source)) as database:
        database.execute("CREATE TABLE pages (id)")
    with pytest.raises(Stop, match="no table django_migrations"):
        bring.take_snapshot(source, target)
    with contextlib.closing(sqlite3.connect(source)) as database:
        database.execute("CREATE TABLE django_migrations (id)")
    bring.take_snapshot(source, target)


def test_a_worker_that_does_not_answer_is_not_a_database_of_another_kind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(monkeypatch, container())
    monkeypatch.setattr(bring, "own_files", lambda _: contextlib.nullcontext([]))
    monkeypatch.setattr(change, "wait_for_migration", lambda _: None)
    monkeypatch.setattr(bring, "path_of", Path)
    monkeypatch.setattr(bring, "take_snapshot", lambda *_: None)
    monkeypatch.setattr(front_page, "report_of", lambda _: {})
    with pytest.raises(Stop, match="uwsgi does not answer"):
        bring.database("db.sqlite3", replace=False)


@pytest.fixture
def ours(disposable_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A running stack that ops takes for this checkout's own, with an empty database."""
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", disposable_stack.project)
    disposable_stack.exec("uwsgi", "python", "manage.py", "flush", "--noinput")
    disposable_stack.exec("uwsgi", "sh", "-c", "rm -rf /data/backup /data/media/*")
    return disposable_stack


@pytest.fixture
def source(ours: Stack, tmp_path: Path) -> Path:
    """A database with a user in it, of which the last page is only in its -wal file, as while runserver has it open."""
    file = tmp_path / "db.sqlite3"
    container = ours.container("uwsgi")["Id"]
    copy = subprocess.run(["docker", "exec", container, "cat", "/data/probe.sqlite3"], capture_output=True, check=True)
    file.write_bytes(copy.stdout)
    return file


def users(ours: Stack) -> list[str]:
    """Return the names in the database of the stack."""
    return ours.exec("uwsgi", "python", "manage.py", "shell", "-v0", "-c", NAMES).split()


def add(file: Path, name: str) -> sqlite3.Connection:
    """Add a user to a database and return the open connection."""
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(USER, (name,))
    database.commit()
    return database


def spy(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return a list that gets the command and the label of each container of `release` that is run."""
    ran, run_once = [], stack.run_once

    def noted(files: Sequence[str], service: str, *command: str, **options: Any) -> str:
        ran.append((*command, options.get("label", "")))
        return run_once(files, service, *command, **options)

    monkeypatch.setattr(stack, "run_once", noted)
    return ran


def test_a_database_is_brought_while_the_site_serves(
    ours: Stack, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = spy(monkeypatch)
    with contextlib.closing(add(source, "ada")):
        assert Path(f"{source}-wal").stat().st_size > 0
        bring.database(str(source), replace=False)
    assert users(ours) == ["ada"]
    # The project's own RELEASE_COMMAND where it has one, in a container that no other verb ends
    assert ran == [("release.py", stack.MIGRATION_LABEL)]
    # The workers, which had it open, see it.
    assert front_page.report_of(stack.workers()[0])["empty"] is False
    with contextlib.closing(add(source, "grace")):
        with pytest.raises(Stop, match=r"has rows. To replace them.* REPLACE=1"):
            bring.database(str(source), replace=False)
        assert users(ours) == ["ada"]
        bring.database(str(source), replace=True)
    assert users(ours) == ["ada", "grace"]
    kept = ours.exec("uwsgi", "sh", "-c", "ls /data/backup/*.sqlite3").split()
    assert kept
    assert "arriving" not in ours.exec("uwsgi", "ls", "-A", "/data")


def test_what_is_no_database_is_refused(ours: Stack, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database at all, though it is longer than a header of one")
    sqlite3.connect(tmp_path / "empty").execute("VACUUM").close()
    for name, message in (("text", "is not a database of SQLite"), ("empty", "is empty"), ("none", "There is no")):
        with pytest.raises(Stop, match=message):
            bring.database(str(tmp_path / name), replace=True)
    assert users(ours) == []


def test_uploads_are_brought_and_nginx_serves_them(ours: Stack, tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats/one.txt").write_text("a cat")
    (tmp_path / "cats/one.txt").chmod(0o600)
    (tmp_path / "dog.txt").write_text("a dog")
    bring.media(str(tmp_path), replace=False)
    assert ours.get("/media/cats/one.txt").text == "a cat"
    (tmp_path / "dog.txt").write_text("another dog")
    with pytest.raises(Stop, match=r"2 of 2 files are there already, such as cats/one.txt.* REPLACE=1"):
        bring.media(str(tmp_path), replace=False)
    assert ours.get("/media/dog.txt").text == "a dog"
    bring.media(str(tmp_path), replace=True)
    assert ours.get("/media/dog.txt").text == "another dog"
    assert ours.exec("uwsgi", "sh", "-c", "cat /data/backup/media-*/dog.txt") == "a dog"


def test_make_manage_reads_its_input(ours: Stack) -> None:
    command = ["make", "manage", "CMD=loaddata --format=json -"]
    done = subprocess.run(command, input=FIXTURE, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert users(ours) == ["brought-by-a-fixture"]
