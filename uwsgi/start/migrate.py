"""Run `manage.py migrate`, with a copy of an SQLite database before the first migration; with --copy, only copy it.

In the same process, since Django says through a signal which migrations it is about to run, and on which database.
"""

import contextlib
import runpy
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import django
from django.core import management
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.models.signals import pre_migrate

BACKUP = Path("/data/backup")
DEFAULT = "default"
# The exit code if the database cannot be copied: the message is complete (release.py)
NOT_COPIED = 3


def copy_before(using: str, plan: list[Any], **_: Any) -> None:
    """Copy the default database if it is a file of SQLite and migrations are pending. Ends the process if it fails."""
    # Sent for every app; the first one is enough.
    pre_migrate.disconnect(copy_before)
    source = Path(str(connections[using].settings_dict["NAME"]))
    is_file = connections[using].vendor == "sqlite" and source.is_file() and source.stat().st_size > 0
    if using != DEFAULT or not plan or not is_file or not connections[using].introspection.table_names():
        return
    try:
        print(f"release: {len(plan)} migrations to run; the database before them: {copied(source)}", flush=True)
    except (OSError, sqlite3.Error) as problem:
        print(
            f"release: the database could not be copied to {BACKUP}: {problem}. Nothing was migrated", file=sys.stderr
        )
        sys.exit(NOT_COPIED)


def copied(source: Path, prefix: str = "") -> Path:
    """Return a new copy of an SQLite database, complete and as of one moment."""
    BACKUP.mkdir(mode=0o700, exist_ok=True)
    # Two may be made within a second, as by `make bring-database` and the migrations after it.
    target = BACKUP / datetime.now(UTC).strftime(f"{prefix}%Y%m%d-%H%M%S-%f.sqlite3")
    new = target.with_suffix(".new")
    new.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(source)) as database:
        database.execute("VACUUM INTO ?", (str(new),))
    new.chmod(0o600)
    new.rename(target)
    return target


def copy_if_pending() -> None:
    """Copy the default database as `copy_before` does, without migrating it."""
    django.setup()
    # By vendor: SpatiaLite's engine has another name. A project without a database has a vendor as well, "unknown".
    if connections[DEFAULT].vendor == "sqlite":
        executor = MigrationExecutor(connections[DEFAULT])
        copy_before(DEFAULT, executor.migration_plan(executor.loader.graph.leaf_nodes()))


if __name__ == "__main__":
    only_copy = sys.argv[1:] == ["--copy"]
    pre_migrate.connect(copy_before, weak=False)
    # As `python manage.py` finds it, whatever folder this file is in.
    sys.path[0] = str(Path.cwd())
    sys.argv = [str(Path("manage.py").resolve()), "migrate", "--noinput"]
    if only_copy:
        management.execute_from_command_line = lambda argv=None: copy_if_pending()
    runpy.run_path(sys.argv[0], run_name="__main__")
