#!/usr/bin/python3
"""Where in a project's folder its parts are: manage.py, the WSGI module, the settings, the requirements.

`make adopt` and `make up` ask it before a build, and it runs in the build, so they cannot disagree. It reads names and
text of files; nothing of the project is imported.
"""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path()
# How far below the project's folder manage.py and wsgi.py are looked for
DEPTH = 4
# Folders that hold no part of a site
OTHERS = {"node_modules", "site-packages", "venv", "env", "tests", "test", "docs", "examples"}
SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE["']?\]?\s*[,=]\s*["']([\w.]+)["']""")
APPLICATION = re.compile(r"""^WSGI_APPLICATION\s*=\s*["']([\w.]+)["']""", re.MULTILINE)
IMPORTED = re.compile(r"^\s*(?:from|import)\s+([A-Za-z_]\w*)", re.MULTILINE)
LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock")
# What a site installs, of several files in requirements/: the first of these
PRODUCTION = ("production", "prod", "base", "common", "main")


class Unclear(Exception):
    """A part cannot be found, or is there more than once. The text goes on after the project's name."""


@dataclass(frozen=True)
class Layout:
    """The parts of one project. Paths are relative to its folder."""

    # The folder of manage.py, in which every command runs
    manage: Path
    # Further folders from which modules are imported, such as src/
    roots: tuple[Path, ...]
    # The WSGI module and its callable
    module: str
    # The settings module; empty if the project does not name it in manage.py or in the WSGI module
    settings: str
    # The file from which Python packages are installed
    requirements: Path


def find(project: Path, module: str = "", settings: str = "") -> Layout:
    """Return the layout of a project; `module` and `settings` are what .env names, if it does. Raises Unclear."""
    manage = folder_of_manage(project)
    requirements = requirements_of(project, manage)
    named = settings or named_settings(project / manage / "manage.py")
    root = root_of(project, manage, named)
    module = module or wsgi_module(project, manage, manage if root is None else root, named)
    place = root_of(project, manage, module.partition(":")[0])
    if place is None:
        fix = " or ".join(wsgi_modules(project, manage)) or "your_project.wsgi:application"
        raise Unclear(f"has no module {module.partition(':')[0]}. Set it in .env: UWSGI_MODULE={fix}")
    if settings and root is None:
        fix = " or ".join(production_settings(project, manage)) or "your_project.settings"
        raise Unclear(f"has no module {settings}. Set it in .env: DJANGO_SETTINGS_MODULE={fix}")
    # manage.py often names the settings for development, and only the WSGI module those that serve.
    wsgi = file_of(project / place, module.partition(":")[0])
    settings = settings or named_settings(wsgi) or named or unnamed_settings(project, manage, wsgi)
    roots = {place, root_of(project, manage, settings) or manage, manage if root is None else root} - {manage}
    return Layout(manage, tuple(sorted(roots)), module, settings, requirements)


def folder_of_manage(project: Path) -> Path:
    """Return the folder of manage.py. Raises Unclear if there is none, or several and none above the others."""
    found = sorted((file.parent for file in files(project, "manage.py")), key=lambda path: len(path.parts))
    nearest = [path for path in found if len(path.parts) == len(found[0].parts)]
    if not found:
        raise Unclear(
            "has no manage.py. Copy your whole Django project there, or name its folder in .env: PROJECT_DIR="
        )
    if len(nearest) > 1:
        raise Unclear(f"has more than one manage.py, in {words(nearest)}. Name one folder in .env: PROJECT_DIR=")
    return nearest[0]


def requirements_of(project: Path, manage: Path) -> Path:
    """Return the file that says what to install, in the project's folder or next to manage.py. Raises Unclear."""
    folders = dict.fromkeys((HERE, manage))
    for name in ("requirements.txt", *LOCKS):
        for folder in folders:
            if (project / folder / name).is_file():
                return folder / name
    for folder in folders:
        several = sorted((project / folder / "requirements").glob("*.txt"))
        wanted = [file for name in PRODUCTION for file in several if file.stem == name]
        if several and not wanted and len(several) > 1:
            raise Unclear(
                f"has several files in {folder / 'requirements'}/ and no requirements.txt. "
                f"Write {folder / 'requirements.txt'} with one line: -r requirements/{several[-1].name}"
            )
        if several:
            return (wanted or several)[0].relative_to(project)
        if (project / folder / "pyproject.toml").is_file():
            return folder / "pyproject.toml"
    raise Unclear("has no requirements.txt, no pyproject.toml and no lock of uv, Poetry, PDM or Pipenv")


def wsgi_module(project: Path, manage: Path, root: Path, settings: str) -> str:
    """Return the WSGI module: the settings' WSGI_APPLICATION, or the only wsgi.py. Raises Unclear."""
    folder = file_of(project / root, settings).parent if settings else project / manage
    for file in sorted(folder.glob("*.py")):
        named = APPLICATION.search(text_of(file))
        if named and root_of(project, manage, named[1].rpartition(".")[0]) is not None:
            return ":".join(named[1].rsplit(".", 1))
    found = wsgi_modules(project, manage)
    # Next to the settings, as startproject puts it; further ones are often an application's or a test's.
    package = f"{settings.partition('.')[0]}."
    found = [name for name in found if name.startswith(package)] or found
    if not found:
        raise Unclear(
            "has no wsgi.py. Name the module with the WSGI application in .env: UWSGI_MODULE=mysite.wsgi:application"
        )
    if len(found) > 1:
        raise Unclear(f"has several WSGI modules. Name one in .env: UWSGI_MODULE={' or '.join(found)}")
    return found[0]


def wsgi_modules(project: Path, manage: Path) -> list[str]:
    """Return every module called wsgi, with its callable."""
    return [f"{name}:application" for name in modules(project, manage, "wsgi.py")]


def production_settings(project: Path, manage: Path) -> list[str]:
    """Return the modules that look like settings for production."""
    return modules(project, manage, "prod*.py")


def modules(project: Path, manage: Path, pattern: str) -> list[str]:
    """Return the names by which files that match are imported: those below manage.py, or else in the whole project."""
    for folder in (project / manage, project):
        # src/ is a folder of packages, not itself one.
        sources = folder / "src" if not (folder / "src/__init__.py").is_file() else folder
        paths = [folder / file for file in files(folder, pattern)]
        roots = [sources if path.is_relative_to(sources) else folder for path in paths]
        if paths:
            found = (path.relative_to(root).with_suffix("") for path, root in zip(paths, roots, strict=True))
            return sorted(".".join(path.parts) for path in found)
    return []


def root_of(project: Path, manage: Path, module: str) -> Path | None:
    """Return the folder from which a module is imported, None if the project does not have it."""
    if not module:
        return None
    for root in dict.fromkeys((manage, manage / "src", HERE, Path("src"))):
        file = file_of(project / root, module)
        if file.is_file() or file.parent.joinpath(file.stem).is_dir():
            return root
    return None


def file_of(root: Path, module: str) -> Path:
    """Return the file of a module or package."""
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if (path / "__init__.py").is_file() else path.with_name(f"{path.name}.py")


def named_settings(file: Path) -> str:
    """Return the settings module that manage.py or a WSGI module sets, nothing if it sets none."""
    named = SETTINGS.search(text_of(file))
    return named[1] if named else ""


def unnamed_settings(project: Path, manage: Path, wsgi: Path) -> str:
    """Return the only settings module of a project that expects its name in the environment. Raises Unclear.

    Nothing if manage.py or the WSGI module may choose it: they speak of settings, or import a module of the project.
    """
    texts = [text_of(project / manage / "manage.py"), text_of(wsgi)]
    imported = {name for text in texts for name in IMPORTED.findall(text)}
    if "settings" in "".join(texts).lower() or any(root_of(project, manage, name) is not None for name in imported):
        return ""
    found = [name for pattern in ("settings.py", "settings/[!_]*.py") for name in modules(project, manage, pattern)]
    if len(found) > 1:
        raise Unclear(
            f"names its settings neither in manage.py nor in {wsgi.name}. "
            f"Name one in .env: DJANGO_SETTINGS_MODULE={' or '.join(found)}"
        )
    return "".join(found)


def text_of(file: Path) -> str:
    """Return the text of a file, nothing if there is none."""
    return file.read_text(errors="replace") if file.is_file() else ""


def files(folder: Path, pattern: str) -> Iterator[Path]:
    """Return the files in a folder, and below it, that match, relative to it."""
    for depth in range(DEPTH):
        for file in sorted(folder.glob("*/" * depth + pattern)):
            found = file.relative_to(folder)
            if file.is_file() and not any(part in OTHERS or part.startswith(".") for part in found.parts):
                yield found


def words(paths: list[Path]) -> str:
    """Return folders in words."""
    return " and ".join(f"{path}/" for path in paths)


def write(layout: Layout, target: Path) -> None:
    """Write what the image needs to know: where commands run, what to install, and what Python starts with."""
    target.joinpath("root").mkdir(parents=True)
    target.joinpath("root/manage").symlink_to(Path("/app") / layout.manage)
    target.joinpath("requirements").write_text(str(layout.requirements))
    # Python reads it at every start, in uWSGI, manage.py and a shell alike. The variables that .env sets come first,
    # unless they are empty: Compose passes UWSGI_MODULE= on as it is.
    # Under `make dev` uWSGI loads a module of ours, and that one PROJECT_MODULE.
    defaults = {
        "UWSGI_MODULE": layout.module,
        "PROJECT_MODULE": layout.module,
        "DJANGO_SETTINGS_MODULE": layout.settings,
    }
    lines = [
        f'import os; os.environ["{name}"] = os.environ.get("{name}") or "{value}"'
        for name, value in defaults.items()
        if value
    ]
    paths = [str(Path("/app") / root) for root in layout.roots]
    target.joinpath("project.pth").write_text("\n".join([*paths, *lines, ""]))


if __name__ == "__main__":
    named = [os.environ.get(name, "") for name in ("UWSGI_MODULE", "DJANGO_SETTINGS_MODULE")]
    try:
        write(find(Path("/app"), *named), Path(sys.argv[1]))
    except Unclear as unclear:
        sys.exit(f"ERROR: the project {unclear}")
