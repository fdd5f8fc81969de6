#!/venv/bin/python
"""Import the project as uWSGI will, run Django's checks, and print in one line why it cannot start."""

import importlib
import os
import subprocess
import sys
import traceback
from pathlib import Path

# Of the migrations to run
SHOWN = 5


def problem(module: str, name: str) -> str | None:
    """Return why `name` cannot be imported from `module`, None if it can."""
    try:
        found = importlib.import_module(module)
    except Exception as error:  # the project's own code can raise anything
        traceback.print_exc(limit=-3)
        return f"UWSGI_MODULE {module}: {type(error).__name__}: {error}"
    if not callable(getattr(found, name, None)):
        return f"UWSGI_MODULE {module} has no callable `{name}`. In .env: UWSGI_MODULE={module}:application"
    return None


def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py and return what it printed."""
    return subprocess.run([sys.executable, "manage.py", *arguments], capture_output=True, text=True, check=False)


def system_check(*arguments: str) -> str | None:
    """Return what `manage.py check` finds wrong: settings, URLs, models."""
    done = manage("check", *arguments)
    warnings = [line for line in done.stderr.splitlines() if line.startswith("?: (")]
    print("\n".join(warnings), end="\n" * bool(warnings))
    return None if done.returncode == 0 else "manage.py check: " + "\n".join(done.stderr.strip().splitlines()[-12:])


def pending_migrations() -> list[str]:
    """Return the migrations in this code that the database does not have yet."""
    told = manage("showmigrations", "--plan").stdout.splitlines()
    return [line.split()[-1] for line in told if line.startswith("[ ]")]


def shortened(names: list[str]) -> str:
    """Return names in one line; of many, the first and their number."""
    if len(names) > SHOWN:
        names = [*names[:SHOWN], f"and {len(names) - SHOWN} more"]
    return ", ".join(names) or "none"


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    asked, _, callable_name = os.environ["UWSGI_MODULE"].partition(":")
    deploy = sys.argv[1:] == ["--deploy"]
    if said := problem(asked, callable_name or "application") or system_check(*(["--deploy"] * deploy)):
        print(said)
        sys.exit(1)
    if deploy:
        print("migrations to run:", shortened(pending_migrations()))
