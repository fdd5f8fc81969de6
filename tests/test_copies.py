"""Before the first migration the database is copied, whichever engine of SQLite it has; no copy replaces another."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.django import python
from tests.support.stack import ROOT

# As SpatiaLite's and others': an engine whose name does not end in sqlite3
ENGINE = "from django.db.backends.sqlite3.base import *\n"
SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).parent
INSTALLED_APPS = ["django.contrib.contenttypes"]
DATABASES = {"default": {"ENGINE": "engine", "NAME": BASE_DIR / "shop.db"}}
"""
MANAGE = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
from django.core.management import execute_from_command_line
execute_from_command_line()
"""
# The program as it is, with its folder for copies here
PROGRAM = """
import runpy, sys
from pathlib import Path
program = Path(sys.argv.pop(1))
code = program.read_text().replace('"/data/backup"', repr(sys.argv.pop(1)))
sys.argv[0] = str(program)
exec(compile(code, program, "exec"), {"__name__": "__main__"})
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an SQLite database that has a table, and migrations to run."""
    folder = tmp_path / "project"
    for name, text in {"engine/base.py": ENGINE, "settings.py": SETTINGS, "manage.py": MANAGE}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with closing(sqlite3.connect(folder / "shop.db")) as database:
        database.execute("CREATE TABLE orders (id INTEGER)")
    return folder


@pytest.mark.parametrize("option", [[], ["--copy"]])
def test_any_engine_of_sqlite_is_copied(project: Path, option: list[str]) -> None:
    """With --copy, before RELEASE_COMMAND; without, before the migrations that it runs itself."""
    copies = project.parent / "copies"
    message = python(project, "-c", PROGRAM, str(ROOT / "uwsgi/start/migrate.py"), str(copies), *option)
    (copy,) = copies.iterdir()
    assert f"the database before them: {copy}" in message
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("orders",)]


def test_copies_of_one_second_are_kept_apart(project: Path) -> None:
    """And of several, the last three once migrations have succeeded; what was replaced on purpose stays."""
    code = """
import runpy, sqlite3, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import migrate
migrate.BACKUP = Path(sys.argv[2])
for number in range(5):
    with sqlite3.connect("shop.db") as database:
        database.execute("INSERT INTO orders VALUES (?)", (number,))
    migrate.copied(Path("shop.db"), "replaced-" if number == 0 else "")
def shown():
    for copy in sorted(migrate.BACKUP.iterdir()):
        (rows,) = sqlite3.connect(copy).execute("SELECT count(*) FROM orders").fetchone()
        print(copy.name.startswith("replaced-"), rows)
    print()
shown()
remove = runpy.run_path(sys.argv[1] + "/release.py")["remove_old_copies"]
remove.__globals__["COPIES"] = migrate.BACKUP
remove()
shown()
"""
    printed = python(project, "-c", code, str(ROOT / "uwsgi/start"), str(project.parent / "copies"))
    all_, kept = printed.split("\n\n")[:2]
    assert all_.splitlines() == ["False 2", "False 3", "False 4", "False 5", "True 1"]
    assert kept.splitlines() == ["False 3", "False 4", "False 5", "True 1"]
