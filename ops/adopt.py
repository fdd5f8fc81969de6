"""`make adopt`: reads the project in app/ and lists what to change before the first build, by file and line.

Nothing of the project is imported and nothing is changed: its source is parsed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from ops import engine, preflight, stack
from ops.console import ROOT, Stop

# What compose.yaml and the build set for every project
TOLD = {
    "DATABASE_URL",
    "DJANGO_ALLOWED_HOSTS",
    "DJANGO_DEBUG",
    "DJANGO_HTTPS",
    "DJANGO_SECRET_KEY_FILE",
    "DJANGO_SETTINGS_MODULE",
    "STATIC_ROOT",
    "UWSGI_HARAKIRI",
    "UWSGI_MODULE",
    "UWSGI_PROCESSES",
    "UWSGI_THREADS",
}
FROM_HOSTS = 'os.environ["DJANGO_ALLOWED_HOSTS"].split(",")'
FOR_DEVELOPMENT = r"'[^']*(debug_toolbar|django_browser_reload|django_watchfiles|whitenoise\.runserver_nostatic)"
IN_THE_SOURCE = r".*\b(BASE_DIR|PROJECT_DIR)\b|'[^/'][^']*'$"
# Of each setting: what its value looks like (as ast.unparse writes it) if it is to be changed, why, and whether
# without the change the stack does not start, or is not safe
RULES = (
    ("DEBUG", "True$", 'DEBUG shows every visitor your settings: DEBUG = os.environ.get("DJANGO_DEBUG") == "1"', True),
    ("ALLOWED_HOSTS", r"(\[\]|\(\))$", f"with DEBUG off no one is answered: {FROM_HOSTS}", True),
    ("ALLOWED_HOSTS", r".*'\*'", f"any Host is believed: {FROM_HOSTS}", False),
    (
        "SECRET_KEY",
        """('[^']+'|"[^"]+")$""",
        'the key is in the source: Path(os.environ["DJANGO_SECRET_KEY_FILE"]).read_text().strip()',
        True,
    ),
    ("STATIC_ROOT", "'/(?!srv/static)[^']*'$", 'is outside the project: STATIC_ROOT = BASE_DIR / "collected"', True),
    ("STATIC_URL", "'(?!/?static/?')[^']+'$", 'nginx serves another address: STATIC_URL = "/static/"', True),
    ("MEDIA_URL", "'(?!/?media/?')[^']+'$", 'nginx serves another address: MEDIA_URL = "/media/"', True),
    ("MEDIA_ROOT", "'/(?!data)[^']*'$", 'cannot be written to here: MEDIA_ROOT = BASE_DIR / "media"', True),
    (
        "MEDIA_ROOT",
        IN_THE_SOURCE,
        "is replaced by a link into the volume `media`; the files that are in it now are not copied",
        False,
    ),
    ("MIDDLEWARE", ".*'[^']*whitenoise", "WhiteNoise is not needed: nginx serves the static files", False),
    ("MIDDLEWARE", f".*{FOR_DEVELOPMENT}", "for development only; keep it behind DEBUG", False),
    ("INSTALLED_APPS", f".*{FOR_DEVELOPMENT}", "for development only; keep it behind DEBUG", False),
    (
        "SECURE_PROXY_SSL_HEADER",
        "",
        "not needed: nginx sets the scheme. With a header other than X-Forwarded-Proto a client could forge it",
        False,
    ),
    ("USE_X_FORWARDED_HOST", "True$", "not needed, unless the proxy in front cannot keep Host", False),
    ("LOGGING", ".*'[^']*FileHandler", "the source is read-only here: log to stderr, which make logs shows", True),
)
ABSENT = {
    "STORAGES": "static files have no hash in their names, so browsers ask again after five minutes: "
    "ManifestStaticFilesStorage in STORAGES",
    "LOGGING": "with DEBUG off, Django's own logging prints nothing: a handler to stderr in LOGGING",
}


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
    # A machine without Docker is not set up yet, so there is no .env to read.
    settings = stack.settings() if engine.version("Compose") else stack.Settings()
    found = findings(ROOT / "app", settings.module, settings.settings_module, settings.variables)
    for finding in found:
        print(f"{'must' if finding.must else 'may '}  {finding.place}\n      {finding.text}")
    if any(finding.must for finding in found):
        raise Stop("Change the lines marked `must` first (why: docs/bring-your-app.md). Then: make adopt")
    print("\nReady as it is. Type: make up" if found else "Ready. Type: make up")


def findings(app: Path, module: str, settings: str = "", variables: AbstractSet[str] = frozenset()) -> list[Finding]:
    """Return everything that is to be changed in the project at `app`.

    `settings` is the settings module that .env names, if it does; `variables` are those of project.env.
    """
    whole = [Finding("app/", text, must=True) for text in preflight.project_problems(app, module, settings)]
    if whole:
        return whole
    manage = settings_named_in(app / "manage.py")
    wsgi = settings_named_in(app.joinpath(*module.partition(":")[0].split(".")).with_suffix(".py"))
    used = settings or wsgi or manage
    trees = settings_files(app, used) if used else []
    if not trees:
        return [Finding("app/manage.py", "names no settings module that is in app/. Is the project whole?", must=True)]
    found = [setting for place, tree in trees for setting in assignments(place, tree)]
    names = {setting.name for setting in found}
    return [
        *two_settings(manage, wsgi, settings),
        *(Finding("settings", text, must=False) for name, text in ABSENT.items() if name not in names),
        *(finding for setting in found for finding in judged(setting)),
        *hashed_without_a_root(found),
        *(
            Finding(f"{place}:{line}", f"needs {name} from the environment. In project.env: {name}=...", must=True)
            for place, tree in trees
            for name, line in required_variables(tree)
            if name not in variables | TOLD
        ),
        *requirement_findings(app),
    ]


def settings_named_in(file: Path) -> str | None:
    """Return the settings module that manage.py or a WSGI module sets, None if it sets none."""
    named = re.search(r"DJANGO_SETTINGS_MODULE\W+([\w.]+)", file.read_text()) if file.is_file() else None
    return named[1] if named else None


def two_settings(manage: str | None, wsgi: str | None, settings: str) -> list[Finding]:
    """Return that migrations would run with other settings than the workers."""
    if settings or not manage or not wsgi or manage == wsgi:
        return []
    text = f"names {manage}, the WSGI module {wsgi}. For both, in .env: DJANGO_SETTINGS_MODULE={wsgi}"
    return [Finding("app/manage.py", text, must=True)]


def settings_files(app: Path, module: str) -> list[tuple[str, ast.Module]]:
    """Return place and syntax tree of a settings module, after those of the project that it imports with a star."""
    path = app.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        return []
    tree = parsed(file, app)
    found: list[tuple[str, ast.Module]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            # from .base import *: one dot is the folder of this file, each further one the folder above
            package = file.parent if node.level else app
            for _ in range(node.level - 1):
                package = package.parent
            inner = [*package.relative_to(app).parts, *(node.module or "").split(".")]
            found += settings_files(app, ".".join(filter(None, inner)))
    return [*found, (f"app/{file.relative_to(app)}", tree)]


def parsed(file: Path, app: Path) -> ast.Module:
    """Return the syntax tree of a file. Raises Stop with the line if it has none."""
    try:
        return ast.parse(file.read_text())
    except SyntaxError as problem:
        raise Stop(f"app/{file.relative_to(app)}, line {problem.lineno}: {problem.msg}") from problem


def assignments(place: str, tree: ast.Module) -> list[Setting]:
    """Return every NAME = value of a settings file, at any depth."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        written = [target.id for target in targets if isinstance(target, ast.Name)]
        found += [Setting(f"{place}:{node.lineno}", name, node.value) for name in written if name.isupper()]
    return found


def required_variables(tree: ast.Module) -> list[tuple[str, int]]:
    """Return name and line of os.environ["NAME"], env("NAME"), env.bool("NAME"), config("NAME") without a default."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            asked, arguments = ast.unparse(node.value), [node.slice]
            wanted = asked in ("os.environ", "environ")
        elif isinstance(node, ast.Call):
            asked, arguments = ast.unparse(node.func), [*node.args, *(keyword.value for keyword in node.keywords)]
            wanted = len(arguments) == 1 and asked.partition(".")[0] in ("env", "config")
        else:
            continue
        if wanted and isinstance(arguments[0], ast.Constant) and isinstance(arguments[0].value, str):
            found.append((arguments[0].value, node.lineno))
    return found


def hashed_without_a_root(found: Sequence[Setting]) -> list[Finding]:
    """Return that hashed names cannot be looked up: their list is kept in STATIC_ROOT."""
    if any(setting.name == "STATIC_ROOT" for setting in found):
        return []
    text = 'needs STATIC_ROOT as well: STATIC_ROOT = BASE_DIR / "collected"'
    storages = [setting for setting in found if setting.name in ("STORAGES", "STATICFILES_STORAGE")]
    hashed = [setting for setting in storages if re.search("'[^']*Manifest", ast.unparse(setting.value))]
    return [Finding(setting.place, text, must=True) for setting in hashed[:1]]


def judged(setting: Setting) -> Iterator[Finding]:
    """Return what is wrong with one assignment."""
    source = ast.unparse(setting.value)
    for name, wrong, text, must in RULES:
        if setting.name == name and re.match(wrong, source):
            yield Finding(setting.place, text, must)
    if setting.name == "DATABASES" and sqlite_in_the_source(setting.value):
        text = "is replaced by a link into the volume `data`; the contents of the file are not copied"
        yield Finding(setting.place, text, must=False)


def sqlite_in_the_source(value: ast.expr) -> bool:
    """Return whether a database dictionary keeps SQLite's file next to the source."""
    return any(
        isinstance(key, ast.Constant) and key.value == "NAME" and bool(re.match(IN_THE_SOURCE, ast.unparse(content)))
        for table in ast.walk(value)
        if isinstance(table, ast.Dict) and "sqlite3" in ast.unparse(table)
        for key, content in zip(table.keys, table.values, strict=True)
    )


def requirement_findings(app: Path) -> list[Finding]:
    """Return what is to be changed in requirements.txt."""
    file = app / "requirements.txt"
    lines = file.read_text().splitlines() if file.is_file() else []
    packages = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower(): number for number, line in enumerate(lines, 1) if line}
    found = {name: f"{name} is not needed here" for name in ("gunicorn", "whitenoise", "uwsgi")}
    if not (app / "apt-packages.txt").is_file():
        found["psycopg2"] = "compiled: put `libpq5` and `build: libpq-dev` into app/apt-packages.txt"
    return [
        Finding(f"app/requirements.txt:{packages[name]}", text, must=name == "psycopg2")
        for name, text in found.items()
        if name in packages
    ]
