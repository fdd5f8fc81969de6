"""SQLite: found by its first bytes, copied as of one moment while the site writes, checked, counted.

Debian's SQLite has a known bug: while two connections write in WAL mode, it can lose rows, seldom and silently
(SECURITY.md). So every copy is read from its first page to its last.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

MAGIC = b"SQLite format 3\0"
# What belongs to an open database and is in the copy already
COMPANIONS = ("-wal", "-shm", "-journal")
BUSY_SECONDS = 60
# What SQLite says when it may not roll back
READ_ONLY = "readonly database"
# How SQLite says that an index or a table needs a function, collation or module that only the project has
NOT_OURS = ("no such function", "unknown function", "no such collation", "no such module")
# Of what a check finds
SHOWN = 3


def walk(folder: Path, left_out: set[str], problems: list[str]) -> Iterator[Path]:
    """Return the files below a folder, without what it has under these names; add what cannot be read to `problems`."""

    def unread(problem: OSError) -> None:
        # Deleted by the site while we look, perhaps
        text = f"The folder {problem.filename} cannot be read: {problem.strerror}. Give it to user 10001"
        if not isinstance(problem, FileNotFoundError) and text not in problems:
            problems.append(text)

    for place, folders, files in os.walk(folder, onerror=unread):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in left_out]
        yield from (Path(place, name) for name in files)


def find(folder: Path, left_out: set[str], problems: list[str]) -> list[Path]:
    """Return the databases below a folder, as `walk` does."""
    return sorted(filter(is_database, walk(folder, left_out, problems)))


def size(source: Path) -> int:
    """Return how much a copy of a database may take."""
    files = (source, source.with_name(f"{source.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def is_database(path: Path) -> bool:
    """Return whether a file is a database of SQLite."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def copy(source: Path, target: Path) -> None:
    """Copy a database as of one moment, while others write. Read-only, so that this never runs a checkpoint.

    A transaction that was cut off has to be rolled back first, as everyone does who opens the database.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        copy_as("ro", source, target)
    except sqlite3.OperationalError as refused:
        if READ_ONLY not in str(refused):
            raise
        copy_as("rw", source, target)


def copy_as(mode: str, source: Path, target: Path) -> None:
    """Copy a database that is opened in this mode."""
    with (
        contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        # It is read again, and thrown away after the run.
        new.execute("PRAGMA synchronous=OFF")
        old.backup(new)


@contextlib.contextmanager
def unchanging(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy that no one else has open. Nothing is written next to it."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        yield database


def tables(database: sqlite3.Connection) -> list[str]:
    """Return the names of the tables."""
    return [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]


def problems(path: Path) -> list[str]:
    """Return what is wrong with a copy: SQLite's own words, nothing if it is whole."""
    try:
        with unchanging(path) as database:
            try:
                found = checked(database, "PRAGMA integrity_check")
            except sqlite3.OperationalError as unknown:
                if not needs_the_project(unknown):
                    raise
                found = table_by_table(database)
    except sqlite3.Error as damaged:
        found = [str(damaged)]
    return found[:SHOWN]


def checked(database: sqlite3.Connection, check: str) -> list[str]:
    """Return what a check finds."""
    return [line for (line,) in database.execute(check) if line != "ok"]


def table_by_table(database: sqlite3.Connection) -> list[str]:
    """Check each table; without its indexes, if one needs a function or collation that only the project has."""
    found = []
    for table in tables(database):
        for check in ("integrity_check", "quick_check"):
            try:
                found += checked(database, f"PRAGMA {check}({quoted(table)})")
                break
            except sqlite3.OperationalError as unknown:
                if not needs_the_project(unknown):
                    raise
    return found


def needs_the_project(problem: sqlite3.OperationalError) -> bool:
    """Return whether a problem is only that this is not the project, which has functions of its own."""
    return any(words in str(problem) for words in NOT_OURS)


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def rows(path: Path) -> dict[str, int]:
    """Return how many rows each table of a copy has. Raises sqlite3.Error if it cannot be read."""
    counted = {}
    with unchanging(path) as database:
        for table in tables(database):
            try:
                counted[table] = database.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone()[0]  # noqa: S608
            except sqlite3.OperationalError as unknown:
                # A virtual table; its rows are in ordinary ones as well.
                if not needs_the_project(unknown):
                    raise
    return counted


def migrations(path: Path) -> list[str]:
    """Return the migrations that a database has had, nothing if it is not Django's."""
    with unchanging(path) as database:
        if "django_migrations" not in tables(database):
            return []
        found = database.execute("SELECT app || '.' || name FROM django_migrations ORDER BY 1")
        return sorted({name for (name,) in found})
