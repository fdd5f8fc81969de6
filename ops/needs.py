"""What `make adopt` says about the project's packages and its Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uwsgi.build import layout
from uwsgi.build.layout import Layout

# It does not start, or answers no one; it starts, but is not safe in public; it would be better, or is good to know.
BREAKS, UNSAFE, COULD = LEVELS = "breaks", "unsafe", "could"
# Of packages that PyPI has only as source, or that load a library: the lines of apt-packages.txt. The build fails
# without those that begin with `build:`.
DEBIAN = {
    "psycopg2": ("build: libpq-dev", "libpq5"),
    "psycopg": ("libpq5",),
    "psycopg-c": ("build: libpq-dev", "libpq5"),
    "mysqlclient": ("build: default-libmysqlclient-dev", "build: pkg-config", "libmariadb3"),
    "python-ldap": ("build: libldap-dev", "build: libsasl2-dev", "libldap2"),
    "pycairo": ("build: libcairo2-dev", "build: pkg-config", "libcairo2"),
    "gdal": ("build: libgdal-dev", "build: g++", "gdal-bin"),
    "weasyprint": ("libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0"),
    "python-magic": ("libmagic1",),
}
# The Pythons of Debian's releases, for PYTHON_IMAGE
PYTHONS = {"debian:trixie-slim": (3, 13), "debian:bookworm-slim": (3, 11), "debian:forky-slim": (3, 14)}
NOT_NEEDED = ("gunicorn", "uwsgi", "whitenoise")


@dataclass(frozen=True)
class Finding:
    """Something to change, or to know."""

    level: str
    place: str
    text: str


def requirement_findings(app: Path, parts: Layout) -> list[Finding]:
    """Return what is to be said about the packages that are installed."""
    locked = parts.requirements.suffix != ".txt"
    apt = layout.text_of(app / "apt-packages.txt").splitlines()
    found = []
    named = packages(app, parts.requirements)
    if not {"psycopg-binary", "psycopg-c"}.isdisjoint(named):
        named.pop("psycopg", None)
    for name, place in named.items():
        missing = [line for line in DEBIAN.get(name, ()) if line not in apt]
        if missing:
            # A lock also names what is installed only for development.
            builds = not locked and any(line.startswith("build:") for line in missing)
            text = f"needs Debian packages. Lines for apt-packages.txt: {', '.join(missing)}"
            found.append(Finding(BREAKS if builds else COULD, place, f"{name} {text}"))
        if name in NOT_NEEDED:
            found.append(Finding(COULD, place, f"{name} is not needed here"))
    locks = [name for name in layout.LOCKS if (app / name).is_file() and name != str(parts.requirements)]
    if locks:
        found.append(Finding(COULD, locks[0], f"is not read: {parts.requirements} comes first"))
    return found


def packages(app: Path, file: Path) -> dict[str, str]:
    """Return the packages that a file of requirements names, in lower case, each with its place."""
    text = layout.text_of(app / file)
    if file.suffix != ".txt":
        return dict.fromkeys(
            re.findall(r'^(?:name = |\s+)"([\w.-]+)"(?=$|: \{)', text.lower(), re.MULTILINE), str(file)
        )
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if included := re.match(r"(?:-r|--requirement)[ =]*(\S+)", line):
            found |= packages(app, file.parent / included[1])
        elif named := re.match(r"([A-Za-z0-9][\w.-]*)(?:\[(c|binary)\b)?", line):
            # psycopg[c] is psycopg-c.
            found["-".join(filter(None, (named[1].lower(), named[2])))] = f"{file}:{number}"
    return found


def left_out_findings(app: Path, parts: Layout) -> list[Finding]:
    """Return what the project's own .dockerignore keeps from the build, though the build needs it.

    Some name what is let in, after a line `*`: they do not know of apt-packages.txt.
    """
    links = [name for name in sorted(app.iterdir()) if name.is_symlink() and name.readlink().is_relative_to("/data")]
    needed = [parts.manage / "manage.py", parts.requirements, Path("apt-packages.txt")]
    files = [file for file in needed if (app / file).is_file()] + [link.relative_to(app) for link in links]
    patterns = layout.text_of(app / ".dockerignore").splitlines()
    return [
        Finding(BREAKS, ".dockerignore", f"keeps {file} from the build. Add a line at its end: !{file}")
        for file in files
        if ignored(str(file), patterns)
    ]


def ignored(path: str, patterns: Sequence[str]) -> bool:
    """Return whether a .dockerignore leaves out a path: its last line that matches it, or a parent, counts."""
    out = False
    for line in map(str.strip, patterns):
        pattern = re.escape(line.removeprefix("!").strip().removeprefix("./").strip("/"))
        for wildcard, meaning in ((r"\*\*/", "(?:.*/)?"), (r"\*\*", ".*"), (r"\*", "[^/]*"), (r"\?", "[^/]")):
            pattern = pattern.replace(wildcard, meaning)
        if line and not line.startswith("#") and re.fullmatch(f"{pattern}(?:/.*)?", path):
            out = not line.startswith("!")
    return out


def python_findings(app: Path, parts: Layout, image: str) -> list[Finding]:
    """Return that the project asks for another Python than this base image has."""
    if image not in PYTHONS:
        return []
    python = PYTHONS[image]
    asked = re.search(
        r"""^(?:requires-python|python) = ["']([^"']+)["']""", layout.text_of(app / "pyproject.toml"), re.MULTILINE
    )
    # No Django before 4.2 runs on 3.13: it imports the module cgi, which is gone.
    old = re.search(r"^django==([0-3]|4\.[01])\b[\d.]*", layout.text_of(app / parts.requirements).lower(), re.MULTILINE)
    found = []
    if asked and not allows(asked[1], python):
        found.append(Finding(BREAKS, "pyproject.toml", f"asks for Python {asked[1]}. {other_python(asked[1], python)}"))
    elif old and python >= (3, 13):
        found.append(
            Finding(
                BREAKS, str(parts.requirements), f"{old[0]} needs Python 3.12 or older. {other_python('<3.13', python)}"
            )
        )
    else:
        for name in (".python-version", "runtime.txt"):
            other = re.search(r"\d+\.\d+", layout.text_of(app / name))
            if other and other[0] != dotted(python):
                found.append(Finding(COULD, name, f"names Python {other[0]}; here it runs on {dotted(python)}"))
    return found


def dotted(python: tuple[int, int]) -> str:
    """Return a version of Python as it is written."""
    return f"{python[0]}.{python[1]}"


def other_python(specifiers: str, python: tuple[int, int]) -> str:
    """Return how to get a Python that is asked for."""
    others = [image for image, version in PYTHONS.items() if allows(specifiers, version)]
    fix = f"In .env: PYTHON_IMAGE={others[0]}" if others else "No release of Debian has it: relax it, if you can"
    return f"This stack has {dotted(python)}. {fix}"


def allows(specifiers: str, python: tuple[int, int]) -> bool:
    """Return whether a requires-python, or Poetry's, admits this Python; of what it does not know, it admits all."""
    for operator, written in re.findall(r"(>=|<=|==|!=|~=|>|<|\^|~)\s*(\d+(?:\.\d+)?)", specifiers):
        version = tuple(map(int, f"{written}.0".split(".")[:2]))
        next_major = (version[0] + 1, 0)
        whole = "." not in written
        wrong = {
            ">=": python < version,
            ">": python <= version,
            "<=": python > version,
            "<": python >= version,
            "==": python[0] != version[0] if whole else python != version,
            "!=": python == version,
            "~=": not version <= python < next_major,
            "^": not version <= python < next_major,
            "~": python[0] != version[0] if whole else python != version,
        }
        if wrong[operator]:
            return False
    return True
