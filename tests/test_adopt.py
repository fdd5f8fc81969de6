"""`make adopt` names each thing that would go wrong, by file and line, and runs nothing of the project."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from ops import adopt
from tests.support.checkout import Checkout
from tests.support.stack import ROOT

GOOD = """
import os
from pathlib import Path
BASE_DIR = Path(__file__).parent
SECRET_KEY = Path(os.environ["DJANGO_SECRET_KEY_FILE"]).read_text().strip()
DEBUG = os.environ.get("DJANGO_DEBUG") == "1"
ALLOWED_HOSTS = os.environ["DJANGO_ALLOWED_HOSTS"].split(",")
STATIC_ROOT = os.environ.get("STATIC_ROOT", BASE_DIR / "collected")
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/data/db.sqlite3"}}
MEDIA_ROOT = "/data/media"
STORAGES = {}
LOGGING = {"handlers": {"stderr": {"class": "logging.StreamHandler"}}}
"""


def project(folder: Path, settings: str = GOOD, requirements: str = "Django\n") -> Path:
    """Write a small project."""
    (folder / "shop").mkdir()
    (folder / "manage.py").write_text('os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n')
    (folder / "requirements.txt").write_text(requirements)
    (folder / "shop/wsgi.py").write_text("")
    (folder / "shop/settings.py").write_text(settings)
    return folder


def said(app: Path) -> list[tuple[str, str, bool]]:
    """Return what is found."""
    return [(one.place, one.text, one.must) for one in adopt.findings(app, "shop.wsgi:application")]


def test_nothing_is_found_in_a_project_that_is_ready(tmp_path: Path) -> None:
    assert said(project(tmp_path)) == []


@pytest.mark.parametrize(
    ("folder", "module"),
    [pytest.param("app", "config.wsgi", marks=pytest.mark.needs_sample), ("tests/probe", "probe.wsgi")],
)
def test_our_own_projects_need_no_change(folder: str, module: str) -> None:
    assert [one for one in adopt.findings(ROOT / folder, module) if one.must] == []


@pytest.mark.parametrize(
    ("line", "text", "must"),
    [
        ("DEBUG: bool = True", "DEBUG shows every visitor your settings", True),
        ("ALLOWED_HOSTS = []", "with DEBUG off no one is answered", True),
        ('ALLOWED_HOSTS = ["*"]', "any Host is believed", False),
        ('SECRET_KEY = "django-insecure-x"  # pragma: allowlist secret', "the key is in the source", True),
        ('STATIC_ROOT = "/var/www/static"', "outside the project", True),
        ('STATIC_URL = "assets/"', 'STATIC_URL = "/static/"', True),
        ('MEDIA_URL = "/uploads/"', 'MEDIA_URL = "/media/"', True),
        ('MEDIA_ROOT = "/var/media"', "cannot be written to", True),
        ('MEDIA_ROOT = BASE_DIR / "media"', "not copied", False),
        ('MEDIA_ROOT = os.path.join(BASE_DIR, "media")', "not copied", False),
        ('MAIL = os.environ["MAIL_HOST"]', "In project.env: MAIL_HOST=...", True),
        ('MAIL = env("MAIL_HOST")', "In project.env: MAIL_HOST=...", True),
        ('MAIL = config("MAIL_HOST", cast=str) + env.str("OTHER")', "In project.env: OTHER=...", True),
        (
            'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db"}}',
            "not copied",
            False,
        ),
        ('MIDDLEWARE = ["whitenoise.middleware.WhiteNoiseMiddleware"]', "WhiteNoise is not needed", False),
        ('INSTALLED_APPS = ["debug_toolbar"]', "for development only", False),
        ('SECURE_PROXY_SSL_HEADER = ("HTTP_X_PROTO", "https")', "a client could forge it", False),
        ("USE_X_FORWARDED_HOST = True", "not needed", False),
        ('LOGGING = {"handlers": {"file": {"class": "logging.FileHandler"}}}', "log to stderr", True),
    ],
)
def test_each_trap_is_named_with_its_line(tmp_path: Path, line: str, text: str, must: bool) -> None:
    found = said(project(tmp_path, f"{GOOD}{line}\n"))
    assert len(found) == 1
    assert found[0][0] == f"app/shop/settings.py:{len(GOOD.splitlines()) + 1}"
    assert text in found[0][1]
    assert found[0][2] is must


@pytest.mark.parametrize(
    "line",
    [
        'STATIC_ROOT = BASE_DIR / "static"',
        'STATIC_ROOT = "static"',
        'STATIC_URL = "static/"',
        'MEDIA_URL = "/media/"',
        'MAIL = os.environ.get("MAIL_HOST")',
        'MAIL = env("MAIL_HOST", default="")',
        'MAIL = env.str("MAIL_HOST", "localhost")',
        'HTTPS = env("DJANGO_HTTPS")',
        'OWN = os.environ["OF_PROJECT_ENV"]',
    ],
)
def test_what_works_is_not_named(tmp_path: Path, line: str) -> None:
    app = project(tmp_path, f"{GOOD}{line}\n")
    assert adopt.findings(app, "shop.wsgi:application", "", {"OF_PROJECT_ENV"}) == []


def test_hashed_names_need_the_folder_of_their_list(tmp_path: Path) -> None:
    without = "\n".join(line for line in GOOD.splitlines() if not line.startswith("STATIC_ROOT"))
    hashed = 'STORAGES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}}'
    assert "needs STATIC_ROOT as well" in str(said(project(tmp_path, f"{without}\n{hashed}\n")))


def documented() -> str:
    """Return the settings that docs/bring-your-app.md shows for the internet."""
    section = (ROOT / "docs/bring-your-app.md").read_text().split("\n## For the internet\n")[1]
    return section.split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize(("debug", "storage"), [("0", "ManifestStaticFilesStorage"), ("1", "StaticFilesStorage")])
def test_the_documented_settings_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: str, storage: str
) -> None:
    assert [one for one in adopt.findings(project(tmp_path, documented()), "shop.wsgi:application") if one.must] == []
    (tmp_path / "key").write_text("a key\n")
    monkeypatch.setenv("DJANGO_SECRET_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("DJANGO_ALLOWED_HOSTS", "example.com,localhost")
    monkeypatch.setenv("DJANGO_HTTPS", "1")
    monkeypatch.setenv("DJANGO_DEBUG", debug)
    names = runpy.run_path(str(tmp_path / "shop/settings.py"), {"BASE_DIR": tmp_path})
    assert names["STORAGES"]["staticfiles"]["BACKEND"].endswith(f".{storage}")
    assert (names["DEBUG"], names["ALLOWED_HOSTS"]) == (debug == "1", ["example.com", "localhost"])
    assert names["SECURE_SSL_REDIRECT"] is True


def test_two_settings_modules_are_named(tmp_path: Path) -> None:
    app = project(tmp_path)
    (app / "shop/wsgi.py").write_text('os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.production")\n')
    (app / "shop/production.py").write_text("from .settings import *\nALLOWED_HOSTS = []\n")
    found = said(app)
    assert "names shop.settings, the WSGI module shop.production" in found[0][1]
    assert [one[0] for one in found] == ["app/manage.py", "app/shop/production.py:2"]
    # As .env then says, and with it the other settings do not count.
    assert adopt.findings(app, "shop.wsgi:application", "shop.settings") == []


@pytest.mark.parametrize("name", ["STORAGES", "LOGGING"])
def test_what_is_missing_is_named(tmp_path: Path, name: str) -> None:
    without = "\n".join(line for line in GOOD.splitlines() if not line.startswith(name))
    assert [one[0] for one in said(project(tmp_path, without))] == ["settings"]


def test_a_package_of_settings_is_read_whole(tmp_path: Path) -> None:
    app = project(tmp_path)
    (app / "shop/settings.py").rename(app / "shop/base.py")
    (app / "shop/settings").mkdir()
    (app / "shop/base.py").rename(app / "shop/settings/base.py")
    (app / "shop/settings/production.py").write_text("from .base import *\nDEBUG = True\n")
    (app / "manage.py").write_text('os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings.production")\n')
    assert [one[0] for one in said(app)] == ["app/shop/settings/production.py:2"]


@pytest.mark.parametrize(
    ("requirements", "text"),
    [
        ("Django\npsycopg2==2.9\n", "`build: libpq-dev`"),
        ("Django\ngunicorn\n", "gunicorn is not needed"),
        ("whitenoise[brotli]>=6\n", "whitenoise is not needed"),
    ],
)
def test_requirements_are_read(tmp_path: Path, requirements: str, text: str) -> None:
    assert text in str(said(project(tmp_path, requirements=requirements)))


def test_nothing_of_the_project_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    app = project(tmp_path, f"{GOOD}open({str(witness)!r}, 'w')\n")
    assert said(app) == []
    assert not witness.exists()


@pytest.mark.needs_sample
def test_make_adopt_says_what_to_do(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, "adopt")
    assert "Type: make up" in checkout.made("adopt")
    with (checkout.folder / "app/config/settings.py").open("a") as settings:
        settings.write("DEBUG = True\n")
    told = checkout.refused("adopt")
    assert "must  app/config/settings.py:" in told
    assert "docs/bring-your-app.md" in told
    (checkout.folder / "app/config/settings.py").write_text("if:\n")
    assert "app/config/settings.py, line 1: invalid syntax" in checkout.refused("adopt")
