#!/usr/bin/python3 -SEs
"""The one-shot service `release`: migrates the database, or runs RELEASE_COMMAND, and publishes the static files.

It runs before `uwsgi` starts, while the previous release may still be serving.
"""

import contextlib
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COLLECTED = Path("/srv/static")
PUBLISHED = Path("/srv/published")
# Pages of an older release may still be open and request its files: keep them this long.
KEEP_DAYS = 30
# The volume uwsgi-temp, where the bodies of requests are while they last
TEMPORARY = Path(tempfile.gettempdir())
LEFT_OVER_SECONDS = 86_400
# The compressed forms in which nginx serves a file, if they are there (uwsgi/Dockerfile)
COMPRESSED = (".gz", ".br")
# `manage.py migrate`, with a copy of an SQLite database before it
MIGRATE = ("/venv/bin/python", "/usr/local/lib/uwsgi/migrate.py")
# Its exit code if it could not copy the database, which it has said
NOT_COPIED = 3
COPIES = Path("/data/backup")
COPIES_KEPT = 3
# In place of it, from .env
COMMAND = os.environ.get("RELEASE_COMMAND", "")
# Of a restore whose renames were cut off, as by a power failure (backup/restore.py): old and new are mixed.
CUT_OFF = Path("/data/.backup/swap.json")
# Django's message
NO_DATABASE = "settings.DATABASES is improperly configured"


def publish(source: Path, target: Path) -> int:
    """Copy every file of `source` to `target` and return how many. A reader never sees half a file.

    A file with the same content stays, and so does its time of modification, from which nginx makes the ETag: browsers
    would load it again. Its chmod writes down, as its time of change, that it was published again.
    """
    count = 0
    for file in source.rglob("*"):
        if not file.is_file():
            continue
        place = target / file.relative_to(source)
        if place.is_file() and filecmp.cmp(file, place, shallow=False):
            place.chmod(0o644)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            new = place.with_name(f".{place.name}.new")
            shutil.copyfile(file, new)
            new.chmod(0o644)
            new.rename(place)
        remove_stale(file, place)
        count += 1
    return count


def remove_stale(file: Path, place: Path) -> None:
    """Remove the compressed forms of a published file that this release does not have.

    nginx would serve them instead of the file. Files below 1 kB are not compressed, so one that shrinks loses them.
    """
    for suffix in COMPRESSED:
        if not file.with_name(file.name + suffix).exists():
            place.with_name(place.name + suffix).unlink(missing_ok=True)


def prune(target: Path, before: float) -> int:
    """Remove the files that no release has published since `before` (seconds since 1970) and return how many."""
    old = [file for file in target.rglob("*") if file.is_file() and file.stat().st_ctime < before]
    for file in old:
        file.unlink()
    return len(old)


def remove_left_over(folder: Path, before: float) -> None:
    """Remove what is older of the uploaded files that a worker left because it was killed."""
    for file in folder.iterdir():
        # Another container may be removing the same.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if file.is_file() and file.stat().st_mtime < before:
                file.unlink()


def own_command() -> None:
    """Run RELEASE_COMMAND, after a copy of an SQLite database. Ends the process with the exit code if one fails."""
    copy = [*MIGRATE, "--copy"]
    stop_if(subprocess.run(copy, check=False).returncode, "the look for pending migrations failed (above)")
    command = ["sh", "-euc", COMMAND]
    stop_if(subprocess.run(command, check=False).returncode, f"RELEASE_COMMAND failed (above): {COMMAND}")


def remove_old_copies() -> None:
    """Remove all but the last few copies of the database (migrate.py), now that the migrations have succeeded.

    Each try of a migration that fails makes one, and the first is the one to go back to.
    """
    for copy in sorted(COPIES.glob("[0-9]*.sqlite3"))[:-COPIES_KEPT]:
        copy.unlink()


def stop_if(code: int, message: str) -> None:
    """End the process with a step's exit code and a message, unless it is 0."""
    if code:
        said = "the database was not copied (above)" if code == NOT_COPIED else message
        print(f"release: {said}; nothing was published", file=sys.stderr)
        sys.exit(code)


def migrate() -> None:
    """Migrate the database, if the project has one. Ends the process with the exit code if that fails."""
    command = [*MIGRATE]
    migrated = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if migrated.returncode != 0 and NO_DATABASE in migrated.stderr:
        print("release: the project has no database", file=sys.stderr)
        return
    print(migrated.stderr, end="", file=sys.stderr)
    stop_if(migrated.returncode, "the migration failed (above)")


def main() -> None:
    """Migrate, then publish, then prune. Ends the process with the failed step's exit code.

    A rollback only publishes (--publish-only): the database already has the newer migrations.
    """
    if CUT_OFF.exists():
        sys.exit("release: a restore was cut off in the middle of its swap. End it: make restore FROM=latest")
    remove_left_over(TEMPORARY, time.time() - LEFT_OVER_SECONDS)
    if sys.argv[1:] != ["--publish-only"]:
        (own_command if COMMAND else migrate)()
        remove_old_copies()
    if not COLLECTED.is_dir() or not any(COLLECTED.iterdir()):
        print("release: the project has no static files", file=sys.stderr)
        return
    count = publish(COLLECTED, PUBLISHED)
    gone = prune(PUBLISHED, time.time() - KEEP_DAYS * 86_400)
    print(f"release: {count} static files published, {gone} older than {KEEP_DAYS} days removed")


if __name__ == "__main__":
    os.umask(0o022)
    main()
