"""`make bring-database`, `make bring-media`: data that exists, copied into the volumes.

Both check first, refuse to replace what is there unless told, and keep a copy of what they replace.
"""

from __future__ import annotations

import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

from ops import change, front_page, stack
from ops.console import ROOT, Stop
from ops.stop import own_files

BRING = "/usr/local/lib/uwsgi/bring.py"
SECONDS = 3600
LISTED = "find /data/media -type f -printf '%P\\n'"


def database(source: str, *, replace: bool) -> None:
    """Copy an SQLite database into the one of the project, and migrate it.

    Raises Stop if it is none, or if rows would be replaced and that is not asked for.
    """
    with own_files("bring-database") as files, tempfile.NamedTemporaryFile(suffix=".sqlite3") as snapshot:
        change.wait_for_migration("bring-database")
        take_snapshot(path_of(source), Path(snapshot.name))
        report = front_page.report_of(stack.workers()[0])
        if not report:
            raise Stop(
                "uwsgi does not answer, so which file its database is cannot be known. Nothing was changed. "
                f"Look at: make ps, make logs S=uwsgi; then: make bring-database FROM={source}"
            )
        if not (target := report.get("database")):
            raise Stop(
                "The project's database is not a file of SQLite. Bring rows in a fixture: "
                'make manage CMD="loaddata --format=json -" <fixture.json'
            )
        if not report.get("empty") and not replace:
            raise Stop(
                f"The database has rows. To replace them, of which a copy is kept in /data/backup: "
                f"make bring-database FROM={source} REPLACE=1"
            )
        print(feed(files, snapshot, "database", target), end="")
        # With its label, no other verb ends it; with RELEASE_COMMAND, if there is one.
        print(stack.run_once(files, "release", "release.py", seconds=SECONDS, label=stack.MIGRATION_LABEL), end="")
    print(f"\n{source} is the database now: {target}")
    front_page.show()


def path_of(source: str) -> Path:
    """Return the path that was named, from this folder. Raises Stop if there is nothing."""
    path = ROOT / source
    if not path.exists():
        raise Stop(f"There is no {source}. Name what to copy: FROM=app/db.sqlite3, or FROM=app/media")
    return path


def take_snapshot(source: Path, target: Path) -> None:
    """Copy an SQLite database as of one moment, with what is only in its -wal file. Raises Stop if it is none."""
    try:
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            whole = new.execute("PRAGMA quick_check").fetchone() == ("ok",)
            tables = {name for (name,) in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as problem:
        raise Stop(f"{source} is not a database of SQLite that can be read: {problem}") from problem
    if not whole or not tables:
        raise Stop(f"{source} is {'damaged' if not whole else 'empty'}. Nothing was changed")
    # One of another program is not to replace the project's.
    if front_page.MIGRATIONS not in tables:
        raise Stop(
            f"{source} is no database of a Django project: it has no table {front_page.MIGRATIONS}. Nothing was changed"
        )


def media(source: str, *, replace: bool) -> None:
    """Copy a folder of uploads into the volume. Raises Stop if a file would be replaced and that is not asked for."""
    with own_files("bring-media") as files, tempfile.TemporaryFile() as archive:
        folder = path_of(source)
        if not folder.is_dir():
            raise Stop(f"{source} is not a folder. Name the one of MEDIA_ROOT: make bring-media FROM=app/media")
        names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        there = set(stack.run_once(files, "release", "sh", "-c", LISTED).splitlines())
        if (same := sorted(names & there)) and not replace:
            raise Stop(
                f"{len(same)} of {len(names)} files are there already, such as {same[0]}. To replace them, of which "
                f"a copy is kept in /data/backup: make bring-media FROM={source} REPLACE=1"
            )
        # Without links: a second name of one file, or a link to a file elsewhere, would arrive as a link.
        with tarfile.open(fileobj=archive, mode="w", dereference=True) as packed:
            for name in sorted(names):
                packed.add(folder / name, name, recursive=False)
        print(feed(files, archive, "media", *(["replace"] if replace else [])), end="")


def feed(files: Sequence[str], data: IO[bytes], *arguments: str) -> str:
    """Run bring.py in a container of its own, with this file as its input, and return what it prints."""
    data.seek(0)
    options = ["run", "--rm", "--no-deps", "-T", "--label", f"{stack.TRIAL_LABEL}=1", "release"]
    command = stack.compose_command(files, "--progress", "quiet", *options, "/venv/bin/python", BRING, *arguments)
    done = subprocess.run(command, stdin=data, capture_output=True, timeout=SECONDS, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise Stop(f"{done.stderr.decode(errors='replace').strip()}\n{done.stdout.decode(errors='replace').strip()}")
    return done.stdout.decode()
