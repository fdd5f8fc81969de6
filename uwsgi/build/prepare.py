#!/venv/bin/python
"""A step of the build: collect the static files, and lead to a volume what the project writes beside its source.

A project that has only known `runserver` keeps its database and its uploads in its own folder. That folder is
part of the image here, and read-only: each such place becomes a link to where it may write and where it survives.
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
# Secrets, and what would make the image large: of a project with another .dockerignore than ours, or none.
LEFT_OUT = (".git", ".env", ".venv", "venv")


def load_variables() -> None:
    """Take in project.env, as the containers will, and what the stack tells every project."""
    lines = VARIABLES.read_text().splitlines() if VARIABLES.exists() else []
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            os.environ[name.strip()] = value.strip().strip("'\"")
    # A throwaway key: the real one is not here, and nothing that collectstatic writes depends on it.
    key = Path(tempfile.mkdtemp()) / "key"
    key.write_text(secrets.token_urlsafe(48))
    os.environ["DJANGO_SECRET_KEY_FILE"] = str(key)
    os.environ["STATIC_ROOT"] = str(COLLECTED)
    os.environ["DJANGO_DEBUG"] = "0"
    os.environ.setdefault("DATABASE_URL", "sqlite:////data/db.sqlite3")
    os.environ.setdefault("DJANGO_ALLOWED_HOSTS", "localhost")


def load_settings() -> None:
    """Set Django up as manage.py would: it may know more than the name of the settings, such as a search path.

    Ends the process with the reason if the settings do not load.
    """
    sys.argv = ["manage.py", "collectstatic"]
    sys.path.insert(0, str(SOURCE))
    management.execute_from_command_line = lambda argv=None: None
    try:
        runpy.run_path("manage.py", run_name="__main__")
        django.setup()
    except Exception as problem:  # the project's own code: anything may come out of it
        sys.exit(
            f"ERROR: the settings do not load: {type(problem).__name__}: {problem}. "
            "What they read from the environment: project.env. Which they are: DJANGO_SETTINGS_MODULE in .env"
        )


def inside(place: str | Path | None) -> Path | None:
    """Return a place as a path if it lies in the project's folder, None if it is empty or lies elsewhere."""
    path = Path(place).resolve() if place else SOURCE
    return path if path.is_relative_to(SOURCE) and path != SOURCE else None


def links() -> dict[Path, Path]:
    """Return the places in the project's folder that are written to, each with where it is to lead."""
    found = {inside(settings.STATIC_ROOT): COLLECTED, inside(settings.MEDIA_ROOT): MEDIA}
    for database in settings.DATABASES.values():
        if database["ENGINE"] == "django.db.backends.sqlite3" and (file := inside(database["NAME"])):
            found[file] = DATA / file.name
    return {place: target for place, target in found.items() if place}


def link(place: Path, target: Path) -> None:
    """Put a link in the place of whatever was there; in the image, not in the project."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)
    print(f"{place} leads to {target}")


def collect() -> None:
    """Collect the static files, whatever STATIC_ROOT the settings have; a project may have none at all."""
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
