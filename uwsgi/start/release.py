#!/usr/bin/python3 -SEs
"""The one-shot service `release`: migrates the database, or runs RELEASE_COMMAND, and publishes the static files.

It runs before `uwsgi` starts, while the previous release may still be serving.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

COLLECTED = Path("/srv/static")
PUBLISHED = Path("/srv/published")
# Pages of an older release may still be open and request its files: keep them this long.
KEEP_DAYS = 30
# `manage.py migrate`, with a copy of an SQLite database before it
MIGRATE = ("/venv/bin/python", "/usr/local/lib/uwsgi/migrate.py")
# In place of it, from .env
COMMAND = os.environ.get("RELEASE_COMMAND", "")
# Django's message
NO_DATABASE = "settings.DATABASES is improperly configured"


def publish(source: Path, target: Path) -> int:
    """Copy every file of `source` to `target` and return how many. A reader never sees half a file."""
    count = 0
    for file in source.rglob("*"):
        if not file.is_file():
            continue
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        new = place.with_name(f".{place.name}.new")
        shutil.copyfile(file, new)
        new.chmod(0o644)
        new.rename(place)
        count += 1
    return count


def prune(target: Path, before: float) -> int:
    """Remove the files that no release has published since `before` (seconds since 1970) and return how many."""
    old = [file for file in target.rglob("*") if file.is_file() and file.stat().st_mtime < before]
    for file in old:
        file.unlink()
    return len(old)


def own_command() -> None:
    """Run RELEASE_COMMAND, after a copy of an SQLite database. Ends the process with the exit code if that fails."""
    for command in ([*MIGRATE, "--copy"], ["sh", "-euc", COMMAND]):
        code = subprocess.run(command, check=False).returncode
        if code:
            print(f"release: RELEASE_COMMAND failed (above); nothing was published: {COMMAND}", file=sys.stderr)
            sys.exit(code)


def migrate() -> None:
    """Migrate the database, if the project has one. Ends the process with the exit code if that fails."""
    command = [*MIGRATE]
    migrated = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if migrated.returncode != 0 and NO_DATABASE in migrated.stderr:
        print("release: the project has no database", file=sys.stderr)
        return
    print(migrated.stderr, end="", file=sys.stderr)
    if migrated.returncode != 0:
        print("release: the migration failed (above); nothing was published", file=sys.stderr)
        sys.exit(migrated.returncode)


def main() -> None:
    """Migrate, then publish, then prune. Ends the process with the failed step's exit code.

    A rollback only publishes (--publish-only): the database already has the newer migrations.
    """
    if sys.argv[1:] != ["--publish-only"]:
        (own_command if COMMAND else migrate)()
    if not COLLECTED.is_dir() or not any(COLLECTED.iterdir()):
        print("release: the project has no static files", file=sys.stderr)
        return
    count = publish(COLLECTED, PUBLISHED)
    gone = prune(PUBLISHED, time.time() - KEEP_DAYS * 86_400)
    print(f"release: {count} static files published, {gone} older than {KEEP_DAYS} days removed")


if __name__ == "__main__":
    os.umask(0o022)
    main()
