#!/venv/bin/python
"""Build step: the project's own build command, its translations and static files, and links for what it writes.

A project that has only run under `runserver` keeps its database and its uploads in its own folder. Here that folder
is part of the image and read-only, so each such path becomes a link into a volume, which is writable and persistent.
"""

import json
import os
import runpy
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import django
from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core import management
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import FileSystemStorage
from django.db import connections

SOURCE = Path("/app")
COLLECTED = Path("/srv/static")
# What the image gets outside /app
LINKS = Path("/links")
# The volumes of compose.yaml
DATA = Path("/data")
MEDIA = DATA / "media"
# Folders in which a path needs no link, and files cannot be part of the image
WRITABLE = (DATA, *map(Path, ("/tmp", "/run", "/dev", "/srv")))  # noqa: S108
ENVIRONMENT = Path("/run/secrets/environment")
# For a bare `docker compose build`, which has no such secret; nothing that is built depends on the values.
DEFAULTS = {
    "DATABASE_URL": "sqlite:////data/db.sqlite3",
    "DJANGO_ALLOWED_HOSTS": "localhost",
    "DJANGO_DEBUG": "0",
    "DJANGO_HTTPS": "0",
}
# What layout.py has found, unless .env names it; empty there means not named.
FOUND = ("UWSGI_MODULE", "DJANGO_SETTINGS_MODULE")
# Never part of the image, whatever the project's own .dockerignore leaves in. A certificate is not a secret, a key is.
SECRET = (".git", ".env*", ".envs", "*.sqlite3*", "*.sqlite", "*.sqlite-*", ".venv", "venv", "id_rsa", "id_ed25519")
KEYS = ("*.pem", "*.key")
# Needed while the project is built
BULKY = ("node_modules",)


def load_variables() -> None:
    """Load the variables that the container will have, as Compose has read them (ops/stack.py)."""
    given = ENVIRONMENT.read_text() if ENVIRONMENT.exists() else ""
    variables = {**DEFAULTS, **json.loads(given or "{}")}
    unset = {name for name, value in variables.items() if value is None or (name in FOUND and not value)}
    os.environ.update({name: value for name, value in variables.items() if name not in unset})
    # A throwaway key: the real one is not available here, and nothing that collectstatic writes depends on it.
    key = Path(tempfile.mkdtemp()) / "key"
    key.write_text(secrets.token_urlsafe(48))
    os.environ["DJANGO_SECRET_KEY_FILE"] = str(key)
    os.environ["STATIC_ROOT"] = str(COLLECTED)


def load_settings() -> None:
    """Set up Django through manage.py, which may do more than name the settings, such as extend sys.path.

    Ends the process with the reason if the settings do not load.
    """
    sys.argv = ["manage.py", "collectstatic"]
    sys.path.insert(0, str(Path.cwd()))
    management.execute_from_command_line = lambda argv=None: None
    try:
        runpy.run_path("manage.py", run_name="__main__")
        django.setup()
    except Exception as problem:  # the project's own code can raise anything
        sys.exit(f"ERROR: the settings do not load: {type(problem).__name__}: {problem}. {way_out(problem)}")


def way_out(problem: Exception) -> str:
    """Return what most likely helps if the settings do not load."""
    text = str(problem)
    if isinstance(problem, ModuleNotFoundError):
        return "Add its package to your requirements, or choose other settings: DJANGO_SETTINGS_MODULE in .env"
    if isinstance(problem, ImportError) or text.startswith("Error loading"):
        return "It may need Debian packages, in apt-packages.txt: `make adopt` names those that it knows"
    if isinstance(problem, OSError) or "unable to open database file" in text:
        return (
            "A folder to which your project writes must be a link into /data: docs/bring-your-app.md, "
            '"Folders that your project writes to"'
        )
    return "Put variables that they read into project.env; choose the module with DJANGO_SETTINGS_MODULE in .env"


def place_of(setting: str | Path | None) -> Path | None:
    """Return where a setting points, None if it is empty or needs no link."""
    path = Path(os.path.normpath(Path.cwd() / setting)) if setting else SOURCE
    # Only its folder's: a project may have made that a link into a volume. One that is there itself is to be replaced,
    # not followed.
    path = path.parent.resolve() / path.name
    if path == SOURCE or any(path.is_relative_to(folder) for folder in WRITABLE):
        return None
    return path


def links() -> dict[Path, Path]:
    """Return the paths that the project writes to and that are in the image, each with the target of its link."""
    found = {place_of(settings.STATIC_ROOT): COLLECTED, place_of(settings.MEDIA_ROOT): MEDIA}
    for alias, database in settings.DATABASES.items():
        name = str(database.get("NAME", ""))
        if is_sqlite(alias) and not name.startswith((":", "file:")) and (file := place_of(name)):
            found[file] = DATA / file.name
    return {place: target for place, target in found.items() if place}


def is_sqlite(alias: str) -> bool:
    """Return whether a database is SQLite, whatever its engine is called; SpatiaLite's is not called sqlite3."""
    try:
        return bool(connections[alias].vendor == "sqlite")
    except (ImportError, ImproperlyConfigured):
        # Its driver is missing, which the check of the project says.
        return False


def link(place: Path, target: Path) -> None:
    """Replace whatever was at this path with a link; in the image, not in the project."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        # With what SQLite keeps next to a database
        for file in (place, *(place.with_name(f"{place.name}-{kind}") for kind in ("wal", "shm", "journal"))):
            file.unlink(missing_ok=True)
    places = [place] if place.is_relative_to(SOURCE) else [place, LINKS / place.relative_to("/")]
    for each in places:
        each.parent.mkdir(parents=True, exist_ok=True)
        each.symlink_to(target)
    print(f"{place} is a link to {target}", flush=True)


def build() -> None:
    """Run the project's own build command, if .env names one. Ends the process if it fails."""
    command = os.environ.get("BUILD_COMMAND")
    if command and subprocess.run(["sh", "-euc", command], check=False).returncode:
        sys.exit(f"ERROR: BUILD_COMMAND failed (above): {command}")


def translate() -> None:
    """Compile the project's translations: many repositories have only the .po files.

    One that does not compile is reported and left out, as it would be under `runserver`.
    """
    here = Path.cwd()
    os.chdir(SOURCE)
    try:
        if any(SOURCE.rglob("LC_MESSAGES/*.po")):
            management.call_command("compilemessages", ignore_patterns=["node_modules"], verbosity=0)
    except management.CommandError as problem:
        print(f"WARNING: some translations do not compile: {problem}", file=sys.stderr)
    finally:
        os.chdir(here)


def collect() -> None:
    """Collect the static files, regardless of STATIC_ROOT in the settings; a project may have none."""
    COLLECTED.mkdir(parents=True, exist_ok=True)
    if not apps.is_installed("django.contrib.staticfiles"):
        return
    settings.STATIC_ROOT = str(COLLECTED)
    if isinstance(staticfiles_storage, FileSystemStorage):
        management.call_command("collectstatic", interactive=False, verbosity=0)
    else:
        # A build is not a release: it must not change what visitors of the running one get.
        print("The static files have a storage elsewhere: collect them in RELEASE_COMMAND (docs/bring-your-app.md)")


def remove(names: Iterable[str]) -> None:
    """Remove the files and folders of these names, at any depth."""
    for name in names:
        for found in [*SOURCE.rglob(name)]:
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink(missing_ok=True)


def remove_keys() -> None:
    """Remove files that hold a private key."""
    for name in KEYS:
        for found in [*SOURCE.rglob(name)]:
            if found.is_file() and b"PRIVATE KEY" in found.read_bytes():
                found.unlink()


if __name__ == "__main__":
    remove(SECRET)
    remove_keys()
    load_variables()
    # As at run time, for a project with links into it
    for folder in (MEDIA, DATA / "private"):
        folder.mkdir(parents=True, exist_ok=True)
    load_settings()
    wanted = links()
    LINKS.mkdir()
    COLLECTED.mkdir(parents=True, exist_ok=True)
    # Already now, so that what the build command writes to STATIC_ROOT is collected.
    for place, target in wanted.items():
        if target == COLLECTED:
            link(place, target)
    build()
    translate()
    collect()
    remove(BULKY)
    for place, target in wanted.items():
        if target != COLLECTED:
            link(place, target)
