"""The parts of a project are found wherever they usually are, and named where there are several."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.stack import run
from uwsgi.build import layout

MANAGE = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{}")\n'


def project(folder: Path, *names: str, settings: str = "shop.settings", wsgi: str = "") -> Path:
    """Write a project of these files; manage.py names its settings, and each wsgi.py those of `wsgi`."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        text = {"manage.py": MANAGE.format(settings), "wsgi.py": MANAGE.format(wsgi) if wsgi else ""}
        file.write_text(text.get(file.name, ""))
    return folder


SHOP = ("shop/settings.py", "shop/wsgi.py")


@pytest.mark.parametrize(
    ("names", "manage", "roots", "module"),
    [
        (("manage.py", *SHOP), ".", (), "shop.wsgi:application"),
        (("backend/manage.py", *(f"backend/{name}" for name in SHOP)), "backend", (), "shop.wsgi:application"),
        (("a/b/c/manage.py", *(f"a/b/c/{name}" for name in SHOP)), "a/b/c", (), "shop.wsgi:application"),
        # A folder src/ next to manage.py, and manage.py in a folder of its own
        (("manage.py", *(f"src/{name}" for name in SHOP)), ".", ("src",), "shop.wsgi:application"),
        (("bin/manage.py", *SHOP), "bin", (".",), "shop.wsgi:application"),
        # What lies about in a repository
        (
            ("manage.py", *SHOP, "node_modules/x/manage.py", "tests/site/manage.py", "docs/wsgi.py", ".venv/wsgi.py"),
            ".",
            (),
            "shop.wsgi:application",
        ),
        # A second site is an example, as long as the settings name their own.
        (("manage.py", *SHOP, "example/wsgi.py"), ".", (), "shop.wsgi:application"),
    ],
)
def test_where_it_lies(
    tmp_path: Path, names: tuple[str, ...], manage: str, roots: tuple[str, ...], module: str
) -> None:
    found = layout.find(project(tmp_path, *names, "requirements.txt"))
    assert (found.manage, found.roots, found.module) == (Path(manage), tuple(map(Path, roots)), module)


def test_the_settings_of_the_wsgi_module_serve(tmp_path: Path) -> None:
    names = ("manage.py", "config/wsgi.py", "config/settings/local.py", "config/settings/production.py")
    app = project(
        tmp_path, *names, "requirements.txt", settings="config.settings.local", wsgi="config.settings.production"
    )
    assert layout.find(app).settings == "config.settings.production"
    assert layout.find(app, settings="config.settings.local").settings == "config.settings.local"


def test_wsgi_application_names_the_module(tmp_path: Path) -> None:
    app = project(tmp_path, "manage.py", *SHOP, "shop/server.py", "requirements.txt")
    (app / "shop/settings.py").write_text('WSGI_APPLICATION = "shop.server.app"\n')
    assert layout.find(app).module == "shop.server:app"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (SHOP, "has no manage.py"),
        (("a/manage.py", "b/manage.py"), "more than one manage.py, in a/ and b/"),
        (("manage.py", "shop/settings.py"), "UWSGI_MODULE=mysite.wsgi:application"),
        (("manage.py", "a/wsgi.py", "b/wsgi.py"), "UWSGI_MODULE=a.wsgi:application or b.wsgi:application"),
    ],
)
def test_what_is_missing_or_there_twice_is_named(tmp_path: Path, names: tuple[str, ...], text: str) -> None:
    with pytest.raises(layout.Unclear, match=text):
        layout.find(project(tmp_path, *names, "requirements.txt"))


def test_modules_that_env_names_must_be_there(tmp_path: Path) -> None:
    app = project(tmp_path, "manage.py", *SHOP, "shop/settings/production.py", "requirements.txt")
    with pytest.raises(layout.Unclear, match=r"Set it in .env: UWSGI_MODULE=shop.wsgi:application"):
        layout.find(app, "mysite.wsgi")
    with pytest.raises(layout.Unclear, match=r"Set it in .env: DJANGO_SETTINGS_MODULE=shop.settings.production"):
        layout.find(app, settings="shop.prod")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("requirements.txt", "uv.lock", "pyproject.toml"), "requirements.txt"),
        (("uv.lock", "pyproject.toml"), "uv.lock"),
        (("poetry.lock", "pyproject.toml"), "poetry.lock"),
        (("pdm.lock", "pyproject.toml"), "pdm.lock"),
        (("Pipfile", "Pipfile.lock"), "Pipfile.lock"),
        (("requirements/base.txt", "requirements/production.txt"), "requirements/production.txt"),
        (("requirements/live.txt",), "requirements/live.txt"),
        (("backend/requirements.txt", "pyproject.toml"), "backend/requirements.txt"),
        (("pyproject.toml",), "pyproject.toml"),
    ],
)
def test_what_is_installed(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    app = project(tmp_path, "backend/manage.py", *(f"backend/{name}" for name in SHOP), *names)
    assert layout.find(app).requirements == Path(found)


def test_several_requirements_of_equal_rank_are_not_chosen_from(tmp_path: Path) -> None:
    app = project(tmp_path, "manage.py", *SHOP, "requirements/live.txt", "requirements/local.txt")
    with pytest.raises(layout.Unclear, match=r"Write requirements.txt with one line: -r requirements/"):
        layout.find(app)


@pytest.mark.parametrize(
    ("given", "started"),
    [({}, "shop.wsgi:application"), ({"UWSGI_MODULE": ""}, "shop.wsgi:application"), ({"UWSGI_MODULE": "own"}, "own")],
)
def test_an_empty_name_in_env_is_none(tmp_path: Path, given: dict[str, str], started: str) -> None:
    """Compose passes an empty UWSGI_MODULE= on as it is."""
    layout.write(layout.find(project(tmp_path / "app", "manage.py", *SHOP, "requirements.txt")), tmp_path / "image")
    code = "import os, site, sys; site.addsitedir(sys.argv[1]); print(os.environ['UWSGI_MODULE'])"
    done = run(sys.executable, "-c", code, str(tmp_path / "image"), environment=given)
    assert (done.stdout.strip(), done.stderr) == (started, "")


DOTENV = "from dotenv import load_dotenv\nload_dotenv()\nfrom django.core.management import execute_from_command_line\n"


def expecting(folder: Path, *names: str, manage: str = DOTENV) -> Path:
    """Write a project that expects DJANGO_SETTINGS_MODULE in the environment, as babybuddy does."""
    app = project(folder, "manage.py", "shop/wsgi.py", "requirements.txt", *names)
    (app / "manage.py").write_text(manage)
    return app


def test_settings_that_are_named_nowhere_are_proposed(tmp_path: Path) -> None:
    names = ("shop/settings/__init__.py", "shop/settings/base.py", "shop/settings/production.py")
    with pytest.raises(layout.Unclear) as raised:
        layout.find(expecting(tmp_path, *names))
    assert str(raised.value).endswith("in .env: DJANGO_SETTINGS_MODULE=shop.settings.base or shop.settings.production")
    named = layout.find(tmp_path, settings="shop.settings.base")
    assert named.settings == "shop.settings.base"


@pytest.mark.parametrize(
    ("manage", "found"),
    [
        (DOTENV, "shop.settings"),
        # Chosen by the project's own code
        ("from shop.cli import main\nmain()\n", ""),
        ("settings.configure()\n", ""),
    ],
)
def test_the_only_settings_are_taken(tmp_path: Path, manage: str, found: str) -> None:
    assert layout.find(expecting(tmp_path, "shop/settings.py", "shop/cli.py", manage=manage)).settings == found
