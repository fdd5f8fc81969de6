"""A changed model without its migration is named by the check of a release: it would be deployed, and answer 500."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.django import python
from tests.support.stack import ROOT

SETTINGS = 'INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "shop", "plain"]\n'
MODEL = "from django.db import models\n\nclass Product(models.Model):\n    name = models.TextField()\n"
# The program as it is, with the project's folder here
CHECK = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], "."]
import check_project, django
check_project.SOURCE = Path.cwd()
django.setup()
print(check_project.unmigrated())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of two applications, one of which has migrations."""
    (tmp_path / "settings.py").write_text(SETTINGS)
    for name in ("shop", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "models.py").write_text(MODEL)
    python(tmp_path, "-m", "django", "makemigrations", "shop", environment=named(tmp_path))
    return tmp_path


def named(folder: Path) -> dict[str, str]:
    """Return the variables with which Django finds the project."""
    return {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(folder)}


def unmigrated(project: Path) -> str:
    """Return what the check finds."""
    return python(project, "-c", CHECK, str(ROOT / "uwsgi/start"), environment=named(project)).strip()


def test_a_model_that_is_as_its_migrations_make_it_is_none(project: Path) -> None:
    """Nor is an application without migrations."""
    assert unmigrated(project) == "[]"


def test_a_changed_model_is_named(project: Path) -> None:
    (project / "shop/models.py").write_text(f"{MODEL}    price = models.IntegerField(default=0)\n")
    assert unmigrated(project) == "['shop']"
