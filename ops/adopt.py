"""`make adopt`: reads the project in app/ and says what to change before the first build, file and line.

Nothing of the project is imported and nothing is changed: its source is parsed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bootstrap.console import ROOT, Stop
from ops import preflight, stack

DEVELOPMENT = ("debug_toolbar", "django_browser_reload", "django_watchfiles", "whitenoise.runserver_nostatic")


@dataclass(frozen=True)
class Finding:
    """Something to change. `must`: without it the stack does not start, or is not safe."""

    place: str
    text: str
    must: bool


@dataclass(frozen=True)
class Setting:
    """One assignment in a settings file."""

    place: str
    name: str
    value: ast.expr


def adopt() -> None:
    """Print what there is to change. Raises Stop if something must be."""
    found = findings(ROOT / "app", stack.setting("UWSGI_MODULE") or "config.wsgi:application")
    for one in found:
        print(f"{'must' if one.must else 'may '}  {one.place}\n      {one.text}")
    if any(one.must for one in found):
        raise Stop("The lines marked `must` first; what each is for: docs/bring-your-app.md. Then: make adopt")
    print("Ready. Type: make up" if not found else "\nReady as it is. Type: make up")


def findings(app: Path, module: str) -> list[Finding]:
    """Return everything that is to be changed in the project at `app`."""
    whole = [Finding("app/", text, must=True) for text in preflight.project_problems(app, module)]
    found = assignments(app)
    if not found and not whole:
        whole.append(
            Finding("app/manage.py", "names no settings module that is in app/. Is the project whole?", must=True)
        )
    by_name = {one.name for one in found}
    missing = [finding for name, finding in ABSENT.items() if found and name not in by_name]
    present = [finding for one in found for finding in judged(one)]
    return [*whole, *missing, *present, *requirement_findings(app)]


def settings_files(app: Path) -> list[Path]:
    """Return the files of the settings module that manage.py names: one, or all of its package's folder."""
    manage = app / "manage.py"
    text = manage.read_text() if manage.is_file() else ""
    named = re.search(r"DJANGO_SETTINGS_MODULE\W+([\w.]+)", text)
    if not named:
        return []
    path = app.joinpath(*named[1].split("."))
    if path.is_dir():
        return sorted(path.glob("*.py"))
    # settings/production.py imports what stands beside it in settings/base.py.
    beside = path.parent.glob("*.py") if path.parent.name == "settings" else [path.with_suffix(".py")]
    return sorted(file for file in beside if file.is_file())


def assignments(app: Path) -> list[Setting]:
    """Return every NAME = value of the settings files, wherever it stands in them."""
    found = []
    for file in settings_files(app):
        try:
            tree = ast.parse(file.read_text())
        except SyntaxError as problem:
            raise Stop(f"app/{file.relative_to(app)}, line {problem.lineno}: {problem.msg}") from problem
        for node in ast.walk(tree):
            if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) or node.value is None:
                continue
            place, value = f"app/{file.relative_to(app)}:{node.lineno}", node.value
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            written = [target.id for target in targets if isinstance(target, ast.Name)]
            found += [Setting(place, name, value) for name in written if name.isupper()]
    return found


def judged(one: Setting) -> Iterator[Finding]:
    """Return what is wrong with one assignment."""
    for wrong, text, must in RULES.get(one.name, []):
        if wrong(one.value):
            yield Finding(one.place, text, must)


def is_true(value: ast.expr) -> bool:
    """Return whether a value is the literal True."""
    return isinstance(value, ast.Constant) and value.value is True


def is_text(value: ast.expr) -> bool:
    """Return whether a value is a literal string, not empty."""
    return isinstance(value, ast.Constant) and isinstance(value.value, str) and bool(value.value)


def is_empty(value: ast.expr) -> bool:
    """Return whether a value is an empty list."""
    return isinstance(value, ast.List | ast.Tuple) and not value.elts


def names(*words: str) -> Callable[[ast.expr], bool]:
    """Return a rule that finds one of these words among the strings of a value."""

    def found(value: ast.expr) -> bool:
        strings = [node.value for node in ast.walk(value) if isinstance(node, ast.Constant)]
        return any(isinstance(text, str) and word in text for text in strings for word in words)

    return found


def in_the_source(value: ast.expr) -> bool:
    """Return whether a path is built on BASE_DIR, or is a relative one."""
    built = any(isinstance(node, ast.Name) and node.id in ("BASE_DIR", "PROJECT_DIR") for node in ast.walk(value))
    return built or (is_text(value) and not str(getattr(value, "value", "")).startswith("/"))


def sqlite_in_the_source(value: ast.expr) -> bool:
    """Return whether a database dictionary keeps SQLite's file beside the source."""
    tables = [node for node in ast.walk(value) if isinstance(node, ast.Dict)]
    return any(
        isinstance(key, ast.Constant) and key.value == "NAME" and in_the_source(content)
        for table in tables
        if names("sqlite3")(table)
        for key, content in zip(table.keys, table.values, strict=True)
    )


def anything(_: ast.expr) -> bool:
    """Return that the setting being there at all is worth a word."""
    return True


ABSENT = {
    "STATIC_ROOT": Finding(
        "settings",
        'STATIC_ROOT is not set: STATIC_ROOT = os.environ.get("STATIC_ROOT", BASE_DIR / "collected")',
        must=True,
    ),
    "STORAGES": Finding(
        "settings",
        "static files have no hash in their names, so browsers ask again after five minutes: "
        "ManifestStaticFilesStorage in STORAGES",
        must=False,
    ),
    "LOGGING": Finding(
        "settings", "with DEBUG off, Django's own logging prints nothing: a handler to stderr in LOGGING", must=False
    ),
}
RULES: dict[str, list[tuple[Callable[[ast.expr], bool], str, bool]]] = {
    "DEBUG": [
        (is_true, 'DEBUG shows every visitor your settings: DEBUG = os.environ.get("DJANGO_DEBUG") == "1"', True)
    ],
    "ALLOWED_HOSTS": [
        (is_empty, 'with DEBUG off nobody is answered: os.environ["DJANGO_ALLOWED_HOSTS"].split(",")', True),
        (names("*"), 'any Host is believed: os.environ["DJANGO_ALLOWED_HOSTS"].split(",")', False),
    ],
    "SECRET_KEY": [
        (is_text, 'the key is in the source: Path(os.environ["DJANGO_SECRET_KEY_FILE"]).read_text().strip()', True)
    ],
    "STATIC_ROOT": [
        (
            lambda value: in_the_source(value) and not names("STATIC_ROOT")(value),
            'collected where the stack does not look: os.environ.get("STATIC_ROOT", BASE_DIR / "collected")',
            True,
        )
    ],
    "MEDIA_ROOT": [
        (in_the_source, 'the source is read-only here, uploads would fail: MEDIA_ROOT = "/data/media"', True)
    ],
    "DATABASES": [(sqlite_in_the_source, 'the source is read-only here: "NAME": "/data/db.sqlite3"', True)],
    "MIDDLEWARE": [
        (names("whitenoise"), "WhiteNoise is not needed: nginx serves the static files", False),
        (names(*DEVELOPMENT), "for development only; keep it behind DEBUG", False),
    ],
    "INSTALLED_APPS": [(names(*DEVELOPMENT), "for development only; keep it behind DEBUG", False)],
    "SECURE_PROXY_SSL_HEADER": [
        (
            anything,
            "not needed: nginx tells the scheme. With another header than X-Forwarded-Proto a client could forge it",
            False,
        )
    ],
    "USE_X_FORWARDED_HOST": [(is_true, "not needed: nginx passes the Host on, and drops X-Forwarded-Host", False)],
    "LOGGING": [(names("FileHandler"), "the source is read-only here: log to stderr, which make logs shows", True)],
}


def requirement_findings(app: Path) -> list[Finding]:
    """Return what is to be said of requirements.txt."""
    file = app / "requirements.txt"
    lines = file.read_text().splitlines() if file.is_file() else []
    packages = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower(): number for number, line in enumerate(lines, 1) if line}
    found = []
    if "psycopg2" in packages and not (app / "apt-packages.txt").is_file():
        place = f"app/requirements.txt:{packages['psycopg2']}"
        found.append(
            Finding(place, "compiled: put `libpq5` and `build: libpq-dev` into app/apt-packages.txt", must=True)
        )
    found += [
        Finding(f"app/requirements.txt:{packages[name]}", f"{name} is not needed here", must=False)
        for name in ("gunicorn", "whitenoise", "uwsgi")
        if name in packages
    ]
    return found
