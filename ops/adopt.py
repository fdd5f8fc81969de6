"""`make adopt`: reads the project in app/ and says what to change before the first build, file and line.

Nothing of the project is imported and nothing is changed: its source is parsed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from ops import preflight, stack
from ops.console import ROOT, Stop

# What compose.yaml and the build tell every project
TOLD = frozenset({"DATABASE_URL", "STATIC_ROOT", "UWSGI_MODULE", "UWSGI_PROCESSES"}) | {
    f"DJANGO_{name}"
    for name in (
        "SECRET_KEY_FILE",
        "ALLOWED_HOSTS",
        "DEBUG",
        "HTTPS",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "SETTINGS_MODULE",
        "STACK_PAGE",
    )
}
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
    module = stack.setting("UWSGI_MODULE") or "config.wsgi:application"
    found = findings(ROOT / "app", module, stack.setting("DJANGO_SETTINGS_MODULE"), own_variables())
    for one in found:
        print(f"{'must' if one.must else 'may '}  {one.place}\n      {one.text}")
    if any(one.must for one in found):
        raise Stop("The lines marked `must` first; what each is for: docs/bring-your-app.md. Then: make adopt")
    print("Ready. Type: make up" if not found else "\nReady as it is. Type: make up")


def own_variables() -> set[str]:
    """Return the names that project.env sets."""
    file = ROOT / (stack.setting("PROJECT_ENV") or "project.env")
    return set(re.findall(r"^([A-Za-z_]\w*)=", file.read_text(), re.MULTILINE)) if file.is_file() else set()


def findings(
    app: Path, module: str, settings: str | None = None, variables: AbstractSet[str] = frozenset()
) -> list[Finding]:
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
    found = [one for place, tree in trees for one in assignments(place, tree)]
    by_name = {one.name for one in found}
    return [
        *two_settings(manage, wsgi, settings),
        *(finding for name, finding in ABSENT.items() if name not in by_name),
        *(finding for one in found for finding in judged(one)),
        *hashed_without_a_root(found),
        *(finding for place, tree in trees for finding in unknown_variables(place, tree, variables | TOLD)),
        *requirement_findings(app),
    ]


def settings_named_in(file: Path) -> str | None:
    """Return the settings module that manage.py or a WSGI module sets, None if it sets none."""
    named = re.search(r"DJANGO_SETTINGS_MODULE\W+([\w.]+)", file.read_text()) if file.is_file() else None
    return named[1] if named else None


def two_settings(manage: str | None, wsgi: str | None, settings: str | None) -> list[Finding]:
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
    """Return every NAME = value of a settings file, wherever it stands in it."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        written = [target.id for target in targets if isinstance(target, ast.Name)]
        found += [Setting(f"{place}:{node.lineno}", name, node.value) for name in written if name.isupper()]
    return found


def unknown_variables(place: str, tree: ast.Module, known: AbstractSet[str]) -> list[Finding]:
    """Return the environment variables without which these settings do not load, and which nobody sets."""
    return [
        Finding(f"{place}:{line}", f"needs {name} from the environment. In project.env: {name}=...", must=True)
        for name, line in required_variables(tree)
        if name not in known
    ]


def required_variables(tree: ast.Module) -> list[tuple[str, int]]:
    """Return name and line of os.environ["NAME"], env("NAME"), env.bool("NAME"), config("NAME") without a default."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            asked, arguments = ast.unparse(node.value), [node.slice]
            wanted = asked in ("os.environ", "environ")
        elif isinstance(node, ast.Call):
            asked, arguments = ast.unparse(node.func), [*node.args, *(one.value for one in node.keywords)]
            wanted = len(arguments) == 1 and asked.partition(".")[0] in ("env", "config")
        else:
            continue
        if wanted and isinstance(arguments[0], ast.Constant) and isinstance(arguments[0].value, str):
            found.append((arguments[0].value, node.lineno))
    return found


def hashed_without_a_root(found: Sequence[Setting]) -> list[Finding]:
    """Return that hashed names cannot be looked up: their list lies in STATIC_ROOT."""
    hashed_names = names("Manifest")
    hashed = [one for one in found if one.name in ("STORAGES", "STATICFILES_STORAGE") and hashed_names(one.value)]
    if not hashed or any(one.name == "STATIC_ROOT" for one in found):
        return []
    text = 'needs STATIC_ROOT as well: STATIC_ROOT = BASE_DIR / "collected"'
    return [Finding(one.place, text, must=True) for one in hashed[:1]]


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
    return built or (is_text(value) and not literal(value).startswith("/"))


def sqlite_in_the_source(value: ast.expr) -> bool:
    """Return whether a database dictionary keeps SQLite's file beside the source."""
    tables = [node for node in ast.walk(value) if isinstance(node, ast.Dict)]
    return any(
        isinstance(key, ast.Constant) and key.value == "NAME" and in_the_source(content)
        for table in tables
        if names("sqlite3")(table)
        for key, content in zip(table.keys, table.values, strict=True)
    )


def elsewhere(*here: str) -> Callable[[ast.expr], bool]:
    """Return a rule that finds a literal absolute path which is none of the places that are there."""
    return lambda value: is_text(value) and literal(value).startswith("/") and not literal(value).startswith(here)


def other_than(folder: str) -> Callable[[ast.expr], bool]:
    """Return a rule that finds a literal address which is not this one."""
    return lambda value: is_text(value) and literal(value).strip("/") != folder


def literal(value: ast.expr) -> str:
    """Return a literal string."""
    return str(value.value) if isinstance(value, ast.Constant) else ""


def anything(_: ast.expr) -> bool:
    """Return that the setting being there at all is worth a word."""
    return True


ABSENT = {
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
        (elsewhere("/srv/static"), 'lies outside the project: STATIC_ROOT = BASE_DIR / "collected"', True),
    ],
    "STATIC_URL": [(other_than("static"), 'nginx serves another address: STATIC_URL = "/static/"', True)],
    "MEDIA_URL": [(other_than("media"), 'nginx serves another address: MEDIA_URL = "/media/"', True)],
    "MEDIA_ROOT": [
        (elsewhere("/data"), 'cannot be written to here: MEDIA_ROOT = BASE_DIR / "media"', True),
        (in_the_source, "leads to the volume `media` here; what lies there now stays behind", False),
    ],
    "DATABASES": [
        (sqlite_in_the_source, "leads to the volume `data` here; what the file holds now stays behind", False)
    ],
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
