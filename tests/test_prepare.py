"""What a project writes to becomes a link into a volume, and what must not be in an image is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.django import python
from tests.support.stack import ROOT

# As the build runs it, with folders of the test in place of those of the image
BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, "{folder}")
import prepare
here = Path.cwd()
prepare.SOURCE, prepare.DATA, prepare.ENVIRONMENT = here, here.parent / "data", here.parent / "environment"
prepare.WRITABLE = (prepare.DATA,)
"""
ENGINE = "from django.db.backends.sqlite3.base import *\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a project, next to that of the volume."""
    folder = tmp_path / "app"
    folder.mkdir()
    (tmp_path / "data").mkdir()
    return folder


def build(project: Path, code: str, **environment: str) -> str:
    """Return what code prints that uses prepare.py."""
    return python(project, "-c", BUILD.format(folder=ROOT / "uwsgi/build") + code, environment=environment)


def test_a_database_of_any_engine_of_sqlite_is_kept(project: Path) -> None:
    """SpatiaLite's engine is not called sqlite3. One whose driver is missing says so when it is used."""
    (project / "engine").mkdir()
    (project / "engine/base.py").write_text(ENGINE)
    code = """
from django.conf import settings
settings.configure(DATABASES={
    "default": {"ENGINE": "engine", "NAME": here / "shop.db"},
    "driverless": {"ENGINE": "django.db.backends.oracle", "NAME": "shop"},
    "memory": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
})
print({str(place): str(target) for place, target in prepare.links().items()})
"""
    assert build(project, code) == f"{ {str(project / 'shop.db'): str(project.parent / 'data/shop.db')} }\n"


def test_a_link_of_the_project_into_a_volume_is_left_as_it_is(project: Path) -> None:
    """As for a folder with more in it than the database: data -> /data."""
    (project / "data").symlink_to(project.parent / "data")
    code = "print(prepare.place_of(here / 'data/db.sqlite3'), prepare.place_of(here / 'db.sqlite3'))"
    assert build(project, code) == f"None {project / 'db.sqlite3'}\n"


def test_databases_are_no_part_of_the_image(project: Path) -> None:
    """Nor what SQLite keeps next to one, whatever the project calls it."""
    kept = ["shop/models.py", "shop/sqlite.py"]
    for name in (*kept, "db.sqlite3", "old/db.sqlite3-wal", "db.sqlite", "db.sqlite-journal", "shop.db", "shop.db-wal"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("")
    build(project, "prepare.remove(prepare.SECRET); prepare.link(here / 'shop.db', prepare.DATA / 'shop.db')")
    (project / "shop.db").unlink()
    assert [str(file.relative_to(project)) for file in sorted(project.rglob("*.*"))] == kept


def test_an_empty_name_in_env_is_none(project: Path) -> None:
    given = {"DJANGO_SETTINGS_MODULE": "", "OWN": "", "UNSET": None}
    (project.parent / "environment").write_text(json.dumps(given))
    code = """
import os
prepare.load_variables()
print([os.environ.get(name) for name in ("DJANGO_SETTINGS_MODULE", "OWN", "UNSET")])
"""
    assert build(project, code, DJANGO_SETTINGS_MODULE="shop.settings") == "['shop.settings', '', None]\n"


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ("KeyError('MAIL')", "Put variables that they read into project.env"),
        ("ModuleNotFoundError('no environ')", "to your requirements"),
        ("OSError('Read-only')", "must be a link into /data"),
        ("Exception('unable to open database file')", "must be a link into /data"),
        ("Exception('Error loading psycopg2 or psycopg module')", "apt-packages.txt"),
    ],
)
def test_settings_that_do_not_load_have_a_way_out(project: Path, raised: str, message: str) -> None:
    assert message in build(project, f"print(prepare.way_out({raised}))")
