#!/venv/bin/python
"""Import the project as uWSGI will, run Django's checks, and print in one line why it cannot start."""

import importlib
import os
import subprocess
import sys
import traceback
from pathlib import Path

from django.apps import apps
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

# Importing stack_checks registers them; then manage.py as it is, with this folder first on sys.path as it expects.
WITH_OUR_CHECKS = """
import runpy, sys
sys.path[0] = "/usr/local/lib/uwsgi/project"
import stack_checks
sys.path[0], sys.argv[0] = "", "manage.py"
runpy.run_path("manage.py", run_name="__main__")
"""
SOURCE = Path("/app")
# Of the migrations to run
SHOWN = 5


def problem(module: str, name: str) -> str | None:
    """Return why `name` cannot be imported from `module`, None if it can."""
    try:
        found = importlib.import_module(module)
    except Exception as error:  # the project's own code can raise anything
        traceback.print_exc(limit=-3)
        # logging.config hides the reason: a file that cannot be written, for example
        reason = f" ({error.__cause__})" if error.__cause__ else ""
        return f"UWSGI_MODULE {module}: {type(error).__name__}: {error}{reason}"
    if not callable(getattr(found, name, None)):
        return f"UWSGI_MODULE {module} has no callable `{name}`. In .env: UWSGI_MODULE={module}:application"
    return None


def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py, with the checks of stack_checks.py added to Django's, and return what it printed."""
    command = [sys.executable, "-c", WITH_OUR_CHECKS, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def system_check() -> str | None:
    """Return what `manage.py check` refuses: settings, URLs, models. Warnings follow once the project serves."""
    done = manage("check")
    if done.returncode == 0:
        return None
    errors = done.stderr.partition("\nWARNINGS:\n")[0]
    return "manage.py check: " + "\n".join(errors.strip().splitlines()[-12:])


def pending_migrations() -> list[str]:
    """Return the migrations in this code that the database does not have yet."""
    lines = manage("showmigrations", "--plan").stdout.splitlines()
    return [line.split()[-1] for line in lines if line.startswith("[ ]")]


def unmigrated() -> list[str]:
    """Return the project's own applications whose models are not what their migrations make.

    An application without migrations is left alone, as by `makemigrations` without a name.
    """
    try:
        loader = MigrationLoader(None, ignore_no_migrations=True)
        changes = MigrationAutodetector(loader.project_state(), ProjectState.from_apps(apps)).changes(
            graph=loader.graph
        )
    except Exception:  # a project that is right must not be stopped by a check that is wrong
        return []
    own = (label for label in changes if Path(apps.get_app_config(label).path).is_relative_to(SOURCE))
    return sorted(set(own) & loader.migrated_apps)


def shortened(names: list[str]) -> str:
    """Return names in one line; of many, the first and their number."""
    if len(names) > SHOWN:
        names = [*names[:SHOWN], f"and {len(names) - SHOWN} more"]
    return ", ".join(names) or "none"


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    asked, _, callable_name = os.environ["UWSGI_MODULE"].partition(":")
    if found := problem(asked, callable_name or "application") or system_check():
        print(found)
        sys.exit(1)
    if sys.argv[1:] == ["--migrations"]:
        print("migrations to run:", shortened(pending_migrations()))
        if changed := unmigrated():
            print(f"models changed without a migration: {shortened(changed)}. make dev, make manage CMD=makemigrations")
