"""`make adopt`: reads the project and lists what to change before the first build, by file and line.

Nothing of the project is imported and nothing is changed: its source is parsed. What only the loaded settings can tell
is for Django's system checks, which run in the built image.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from ops import engine, needs, preflight, stack
from ops.console import Stop
from ops.needs import BREAKS, COULD, LEVELS, UNSAFE, Finding
from uwsgi.build import layout
from uwsgi.build.layout import Layout

FROM_HOSTS = 'os.environ["DJANGO_ALLOWED_HOSTS"].split(",")'
FOR_DEVELOPMENT = r".*'[^']*(debug_toolbar|django_browser_reload|django_watchfiles)"
IN_THE_SOURCE = r".*\b(BASE_DIR|PROJECT_DIR|ROOT_DIR|APPS_DIR)\b|'[^/'][^']*'$"
EGRESS = "needs the internet, which uwsgi cannot reach (docs/bring-your-app.md, Calling other services)"
# Of each setting: what its last value looks like (as ast.unparse writes it), how bad it is, and what to do
RULES = (
    (
        "DEBUG",
        "True$",
        UNSAFE,
        'DEBUG shows every visitor your settings: DEBUG = os.environ.get("DJANGO_DEBUG") == "1"',
    ),
    ("ALLOWED_HOSTS", r"[\[(].*'\*'", UNSAFE, f"any Host is believed: {FROM_HOSTS}"),
    (
        "SECRET_KEY",
        """('[^']+'|"[^"]+")$""",
        UNSAFE,
        'the key is in the source: Path(os.environ["DJANGO_SECRET_KEY_FILE"]).read_text().strip()',
    ),
    (
        "SECURE_PROXY_SSL_HEADER",
        ".*HTTP_(?!X_FORWARDED_PROTO')",
        UNSAFE,
        "a client could forge it. Not needed here: nginx sets the scheme",
    ),
    ("STATIC_URL", "'(?!/?static/?'|[^']*://)[^']+'$", COULD, "nginx serves /static/; this address only Django can"),
    ("MEDIA_URL", "'(?!/?media/?'|[^']*://)[^']+'$", COULD, "nginx serves /media/; this address only Django can"),
    ("MEDIA_ROOT", "(?!'/data)", COULD, "becomes a link into the volume `media`; its files are not copied"),
    ("CHANNEL_LAYERS", ".*", COULD, "WSGI only: no WebSockets here"),
    ("EMAIL_HOST", "'(?!localhost)", COULD, EGRESS),
    ("SENTRY_DSN", ".+", COULD, EGRESS),
)
EVERY_LINE = (("MIDDLEWARE", FOR_DEVELOPMENT), ("INSTALLED_APPS", FOR_DEVELOPMENT))
ABSENT = {
    "STORAGES": "static files have no hash in their names, so browsers ask again after five minutes: "
    "ManifestStaticFilesStorage in STORAGES",
    "LOGGING": "with DEBUG off, Django's own logging prints nothing: a handler to stderr in LOGGING",
}


@dataclass(frozen=True)
class Setting:
    """One assignment in a settings file; `always` if it is not inside an `if`, a `try` or a function."""

    place: str
    name: str
    value: ast.expr
    always: bool


def adopt() -> None:
    """Print what there is to change. Raises Stop if something breaks."""
    # A machine without Docker is not set up yet, so there is no .env to read.
    settings = stack.settings() if engine.version("Compose") else stack.Settings()
    app = settings.folder()
    if problems := preflight.project_problems(app, settings.module, settings.settings_module):
        raise Stop("\n".join([*problems, "Then: make adopt"]))
    parts = layout.find(app, settings.module, settings.settings_module)
    print(
        f"{settings.shown()}: manage.py in {parts.manage}/, WSGI module {parts.module}, "
        f"settings {parts.settings or 'chosen by manage.py'}, packages from {parts.requirements}"
    )
    found = findings(app, parts, settings.variables, settings.python_image)
    for level in LEVELS:
        for finding in found:
            if finding.level == level:
                print(f"{level:<6}  {finding.place}\n        {finding.text}")
    if any(finding.level == BREAKS for finding in found):
        raise Stop("Fix what is marked `breaks` first (why: docs/bring-your-app.md). Then: make adopt")
    unsafe = any(finding.level == UNSAFE for finding in found)
    print("\nReady to try: make up. Fix what is `unsafe` before it is public" if unsafe else "\nReady. Type: make up")


def findings(
    app: Path, parts: Layout, variables: AbstractSet[str] = frozenset(), image: str = stack.Settings.python_image
) -> list[Finding]:
    """Return everything that is to be said about the project; `variables` are those of project.env."""
    root = layout.root_of(app, parts.manage, parts.settings)
    trees, unread = settings_files(app / root, parts.settings) if root is not None else ([], [])
    found = [setting for file, tree in trees for setting in assignments(str(file.relative_to(app)), tree)]
    last = {setting.name: setting for setting in found}
    return [
        *(Finding(BREAKS if newest() else COULD, str(file.relative_to(app)), text) for file, text in unread),
        *(finding for setting in last.values() for finding in judged(setting)),
        *(
            Finding(COULD, setting.place, "for development only; keep it behind DEBUG")
            for setting in found
            for name, wrong in EVERY_LINE
            if setting.name == name and setting.always and re.match(wrong, ast.unparse(setting.value))
        ),
        *no_hosts(last),
        *no_key(last, variables),
        *without_gdal(app, last),
        *hashed_without_a_root(found),
        *(Finding(COULD, "settings", text) for name, text in ABSENT.items() if trees and name not in last),
        *(
            Finding(BREAKS, f"{file.relative_to(app)}:{line}", f"needs {name}. In project.env: {name}=...")
            for file, tree in trees
            for name, line in required_variables(tree)
            if name not in variables | preflight.SET_BY_THE_STACK
        ),
        *chosen_settings(app, parts),
        *needs.left_out_findings(app, parts),
        *needs.requirement_findings(app, parts),
        *needs.python_findings(app, parts, image),
    ]


def newest() -> bool:
    """Return whether this machine's Python knows all that the image's does."""
    return sys.version_info >= (3, 13)


def settings_files(root: Path, module: str) -> tuple[list[tuple[Path, ast.Module]], list[tuple[Path, str]]]:
    """Return path and syntax tree of a settings module, after those that it imports with a star; and those unread."""
    file = layout.file_of(root, module)
    if not file.is_file():
        return [], []
    try:
        tree = ast.parse(file.read_text())
    except SyntaxError as problem:
        return [], [(file, f"line {problem.lineno}: {problem.msg}")]
    trees: list[tuple[Path, ast.Module]] = []
    unread: list[tuple[Path, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            # from .base import *: one dot is the folder of this file, each further one the folder above
            package = [file.parent, *file.parent.parents][node.level - 1] if node.level else root
            inner = settings_files(package, node.module) if node.module else ([], [])
            trees, unread = trees + inner[0], unread + inner[1]
    return [*trees, (file, tree)], unread


def assignments(place: str, tree: ast.Module) -> list[Setting]:
    """Return every NAME = value of a settings file, at any depth."""
    always = {id(node) for node in tree.body}
    return [
        Setting(f"{place}:{node.lineno}", target.id, node.value, id(node) in always)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id.isupper()
    ]


def required_variables(tree: ast.Module) -> list[tuple[str, int]]:
    """Return name and line of os.environ["NAME"], env("NAME"), env.bool("NAME"), config("NAME") without a default.

    Only where they always run: in an `if` or a function, no one knows from the file.
    """
    # environ.Env(NAME=(bool, False)) is a default.
    defaults = {
        keyword.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Env")
        for keyword in node.keywords
    }
    plain = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr)]
    found = []
    for node in (inner for outer in plain for inner in ast.walk(outer)):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            asked, arguments = ast.unparse(node.value), [node.slice]
            wanted = asked in ("os.environ", "environ")
        elif isinstance(node, ast.Call):
            asked, arguments = ast.unparse(node.func), [*node.args, *(keyword.value for keyword in node.keywords)]
            # env.cache(default="locmem://") names no variable.
            wanted = len(arguments) == len(node.args) == 1 and asked.partition(".")[0] in ("env", "config")
        else:
            continue
        if wanted and isinstance(arguments[0], ast.Constant) and isinstance(name := arguments[0].value, str):
            found += [(name, node.lineno)] * (name not in defaults)
    return found


def judged(setting: Setting) -> Iterator[Finding]:
    """Return what is to be said about the last assignment of a setting."""
    source = ast.unparse(setting.value)
    for name, wrong, level, text in RULES:
        if setting.name == name and re.match(wrong, source):
            yield Finding(level, setting.place, text)
    if setting.name == "DATABASES" and any(
        re.match(IN_THE_SOURCE, name) for name in entries(setting, "sqlite3", "NAME")
    ):
        text = "becomes a link into the volume `data`; the contents of the file are not copied"
        yield Finding(COULD, setting.place, text)
    if setting.name == "LOGGING" and any(
        re.match(IN_THE_SOURCE, name) for name in entries(setting, "FileHandler", "filename")
    ):
        text = "the source is read-only here: log to stderr, which make logs shows, or to a file in /data"
        yield Finding(BREAKS, setting.place, text)


def entries(setting: Setting, kind: str, key: str) -> list[str]:
    """Return, as source, what dictionaries of this kind in a setting have under a key."""
    return [
        ast.unparse(content)
        for table in ast.walk(setting.value)
        if isinstance(table, ast.Dict) and kind in ast.unparse(table)
        for name, content in zip(table.keys, table.values, strict=True)
        if isinstance(name, ast.Constant) and name.value == key
    ]


def no_hosts(last: dict[str, Setting]) -> list[Finding]:
    """Return that no one is answered: without hosts Django does so only while DEBUG is on."""
    hosts, debug = last.get("ALLOWED_HOSTS"), last.get("DEBUG")
    if not hosts or ast.unparse(hosts.value) not in ("[]", "()"):
        return []
    if debug and ast.unparse(debug.value) == "True":
        return [Finding(UNSAFE, hosts.place, f"answers no name but localhost: ALLOWED_HOSTS = {FROM_HOSTS}")]
    return [Finding(BREAKS, hosts.place, f"with DEBUG off no one is answered: ALLOWED_HOSTS = {FROM_HOSTS}")]


def no_key(last: dict[str, Setting], variables: AbstractSet[str]) -> list[Finding]:
    """Return that Django does not start: the key comes from a variable that is not set, and has no default."""
    key = last.get("SECRET_KEY")
    read = r"os\.(?:environ\.get|getenv)\('(\w+)'(?:, (?:None|''))?\)(?: or None)?"
    asked = re.fullmatch(read, ast.unparse(key.value)) if key else None
    if not key or not asked or asked[1] in variables | preflight.SET_BY_THE_STACK:
        return []
    return [Finding(BREAKS, key.place, f"needs {asked[1]}. In project.env: {asked[1]}=...")]


def without_gdal(app: Path, last: dict[str, Setting]) -> list[Finding]:
    """Return that GeoDjango's library is missing: with it among the applications, nothing starts."""
    apps = last.get("INSTALLED_APPS")
    if (
        not apps
        or "django.contrib.gis" not in ast.unparse(apps.value)
        or "gdal" in layout.text_of(app / "apt-packages.txt")
    ):
        return []
    return [Finding(BREAKS, apps.place, "GeoDjango needs Debian packages. Lines for apt-packages.txt: gdal-bin")]


def hashed_without_a_root(found: Sequence[Setting]) -> list[Finding]:
    """Return that hashed names cannot be looked up: their list is kept in STATIC_ROOT."""
    if any(setting.name == "STATIC_ROOT" for setting in found):
        return []
    text = 'needs STATIC_ROOT as well: STATIC_ROOT = BASE_DIR / "collected"'
    storages = [setting for setting in found if setting.name in ("STORAGES", "STATICFILES_STORAGE")]
    hashed = [setting for setting in storages if re.search("'[^']*Manifest", ast.unparse(setting.value))]
    return [Finding(BREAKS, setting.place, text) for setting in hashed[:1]]


def chosen_settings(app: Path, parts: Layout) -> list[Finding]:
    """Return that there are other settings than those that serve."""
    found = []
    of_manage = layout.named_settings(app / parts.manage / "manage.py")
    if of_manage and of_manage != parts.settings:
        text = f"names {of_manage}; here everything runs with {parts.settings}"
        found.append(Finding(COULD, str(parts.manage / "manage.py"), text))
    others = [name for name in layout.production_settings(app, parts.manage) if name != parts.settings]
    if re.search(r"\.(dev|development|local|debug|test)$", parts.settings) and others:
        text = f"is for development. In .env: DJANGO_SETTINGS_MODULE={' or '.join(others)}"
        found.append(Finding(UNSAFE, parts.settings, text))
    return found
