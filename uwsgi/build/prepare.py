#!/venv/bin/python
"""Build step: collect the static files, and link to a volume whatever the project writes next to its source.

A project that has only run under `runserver` keeps its database and its uploads in its own folder. Here that folder
is part of the image and read-only, so each such path becomes a link into a volume, which is writable and persistent.
"""

import os
import runpy
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import django
from django.conf import settings
from django.core import management

SOURCE = Path("/app")
COLLECTED = Path("/srv/static")
# The volumes of compose.yaml
DATA = Path("/data")
MEDIA = DATA / "media"
VARIABLES = Path("/run/secrets/project-env")
# Secrets and large folders, in case the project has no .dockerignore or one that does not exclude them.
LEFT_OUT = (".git", ".env", ".venv", "venv")


def load_variables() -> None:
    """Load project.env, as the containers will, and the variables that the stack sets for every project."""
    lines = VARIABLES.read_text().splitlines() if VARIABLES.exists() else []
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            os.environ[name.strip()] = value.strip().strip("'\"")
    # A throwaway key: the real one is not available here, and nothing that collectstatic writes depends on it.
    key = Path(tempfile.mkdtemp()) / "key"
    key.write_text(secrets.token_urlsafe(48))
    os.environ["DJANGO_SECRET_KEY_FILE"] = str(key)
    os.environ["STATIC_ROOT"] = str(COLLECTED)
    os.environ["DJANGO_DEBUG"] = "0"
    os.environ.setdefault("DATABASE_URL", "sqlite:////data/db.sqlite3")
    os.environ.setdefault("DJANGO_ALLOWED_HOSTS", "localhost")


def load_settings() -> None:
    """Set up Django through manage.py, which may do more than name the settings, such as extend sys.path.

    Ends the process with the reason if the settings do not load.
    """
    sys.argv = ["manage.py", "collectstatic"]
    sys.path.insert(0, str(SOURCE))
    management.execute_from_command_line = lambda argv=None: None
    try:
        runpy.run_path("manage.py", run_name="__main__")
        django.setup()
    except Exception as problem:  # the project's own code can raise anything
        sys.exit(
            f"ERROR: the settings do not load: {type(problem).__name__}: {problem}. "
            "Put variables that they read into project.env; choose the module with DJANGO_SETTINGS_MODULE in .env"
        )


def inside(place: str | Path | None) -> Path | None:
    """Return a place as a path if it is in the project's folder, None if it is empty or elsewhere."""
    path = Path(place).resolve() if place else SOURCE
    return path if path.is_relative_to(SOURCE) and path != SOURCE else None


def links() -> dict[Path, Path]:
    """Return the paths in the project's folder that are written to, each with the target of its link."""
    found = {inside(settings.STATIC_ROOT): COLLECTED, inside(settings.MEDIA_ROOT): MEDIA}
    for database in settings.DATABASES.values():
        if database["ENGINE"] == "django.db.backends.sqlite3" and (file := inside(database["NAME"])):
            found[file] = DATA / file.name
    return {place: target for place, target in found.items() if place}


def link(place: Path, target: Path) -> None:
    """Replace whatever was at this path with a link; in the image, not in the project."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)
    print(f"{place} is a link to {target}")


def collect() -> None:
    """Collect the static files, regardless of STATIC_ROOT in the settings; a project may have none."""
    COLLECTED.mkdir(parents=True, exist_ok=True)
    if "django.contrib.staticfiles" in settings.INSTALLED_APPS:
        settings.STATIC_ROOT = str(COLLECTED)
        management.call_command("collectstatic", interactive=False, verbosity=0)


if __name__ == "__main__":
    for name in LEFT_OUT:
        left = SOURCE / name
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    load_variables()
    load_settings()
    wanted = links()
    collect()
    for place, target in wanted.items():
        link(place, target)
