"""`make adopt` names each thing that would go wrong, by file and line, and runs nothing of the project."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from ops import adopt, needs
from tests.support.checkout import Checkout
from tests.support.stack import ROOT
from uwsgi.build import layout

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


def findings(app: Path, variables: frozenset[str] = frozenset(), settings: str = "") -> list[needs.Finding]:
    """Return what is found in a project."""
    return adopt.findings(app, layout.find(app, "", settings), variables)


def shown(app: Path) -> list[tuple[str, str, str]]:
    """Return place, text and level of what is found."""
    return [(finding.place, finding.text, finding.level) for finding in findings(app)]


def test_hosts_that_only_debug_leaves_empty_are_named(tmp_path: Path) -> None:
    """As startproject has them: `make up` would then find that every page is a 400."""
    found = shown(project(tmp_path, f"{GOOD}DEBUG = True\nALLOWED_HOSTS = []\n"))
    assert [level for _, text, level in found if "answers no name but localhost" in text] == ["unsafe"]


def test_nothing_is_found_in_a_project_that_is_ready(tmp_path: Path) -> None:
    assert shown(project(tmp_path)) == []


@pytest.mark.parametrize("folder", [pytest.param("app", marks=pytest.mark.needs_sample), "tests/probe"])
def test_our_own_projects_need_no_change(folder: str) -> None:
    assert [finding for finding in findings(ROOT / folder) if finding.level == needs.BREAKS] == []


@pytest.mark.parametrize(
    ("line", "text", "level"),
    [
        ("DEBUG: bool = True", "DEBUG shows every visitor your settings", "unsafe"),
        ("ALLOWED_HOSTS = []", "with DEBUG off no one is answered", "breaks"),
        ('ALLOWED_HOSTS = ["*"]', "any Host is believed", "unsafe"),
        ('SECRET_KEY = "django-insecure-x"  # pragma: allowlist secret', "the key is in the source", "unsafe"),
        ('STATIC_URL = "assets/"', "nginx serves /static/", "could"),
        ('MEDIA_URL = "/uploads/"', "nginx serves /media/", "could"),
        ('MEDIA_ROOT = BASE_DIR / "media"', "not copied", "could"),
        ('MEDIA_ROOT = "/var/media"', "not copied", "could"),
        ('MAIL = os.environ["MAIL_HOST"]', "In project.env: MAIL_HOST=...", "breaks"),
        ('MAIL = env("MAIL_HOST")', "In project.env: MAIL_HOST=...", "breaks"),
        ('SECRET_KEY = os.environ.get("KEY") or None', "needs KEY. In project.env: KEY=...", "breaks"),
        ('SECRET_KEY = os.getenv("KEY", "")', "needs KEY. In project.env: KEY=...", "breaks"),
        ('MAIL = config("MAIL_HOST", cast=str) + env.str("OTHER")', "In project.env: OTHER=...", "breaks"),
        (
            'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db"}}',
            "not copied",
            "could",
        ),
        ('INSTALLED_APPS = ["debug_toolbar"]', "for development only", "could"),
        ('SECURE_PROXY_SSL_HEADER = ("HTTP_X_PROTO", "https")', "a client could forge it", "unsafe"),
        (
            'LOGGING = {"handlers": {"file": {"class": "logging.FileHandler", "filename": BASE_DIR / "log"}}}',
            "log to stderr",
            "breaks",
        ),
        ('EMAIL_HOST = "smtp.example.com"', "needs the internet", "could"),
        ('INSTALLED_APPS = ["django.contrib.gis"]', "apt-packages.txt: gdal-bin", "breaks"),
        ("CHANNEL_LAYERS = {}", "no WebSockets", "could"),
    ],
)
def test_each_trap_is_named_with_its_line(tmp_path: Path, line: str, text: str, level: str) -> None:
    found = shown(project(tmp_path, f"{GOOD}{line}\n"))
    assert len(found) == 1, found
    assert found[0][0] == f"shop/settings.py:{len(GOOD.splitlines()) + 1}"
    assert text in found[0][1]
    assert found[0][2] == level


@pytest.mark.parametrize(
    "line",
    [
        'STATIC_ROOT = BASE_DIR / "static"',
        'STATIC_ROOT = "/var/www/static"',
        'STATIC_URL = "static/"',
        'STATIC_URL = "https://cdn.example.com/static/"',
        'MEDIA_URL = "/media/"',
        'MAIL = os.environ.get("MAIL_HOST")',
        'MAIL = env("MAIL_HOST", default="")',
        'MAIL = env.str("MAIL_HOST", "localhost")',
        # As django-oscar's sandbox has it: not a name
        'CACHES = {"default": env.cache(default="locmemcache://")}',
        'env = environ.Env(MAIL_HOST=(str, ""))\nMAIL = env("MAIL_HOST")',
        'if "MAIL_HOST" in os.environ:\n    MAIL = os.environ["MAIL_HOST"]',
        'HTTPS = env("DJANGO_HTTPS")',
        'OWN = os.environ["OF_PROJECT_ENV"]',
        'SECRET_KEY = os.environ.get("OF_PROJECT_ENV")',
        'SECRET_KEY = os.environ.get("KEY") or secrets.token_hex()',
        'DEBUG = True\nDEBUG = os.environ.get("DJANGO_DEBUG") == "1"',
        'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")',
        'LOGGING = {"handlers": {"f": {"class": "logging.handlers.RotatingFileHandler", "filename": "/data/log/x"}}}',
    ],
)
def test_what_works_is_not_named(tmp_path: Path, line: str) -> None:
    assert findings(project(tmp_path, f"{GOOD}{line}\n"), frozenset({"OF_PROJECT_ENV"})) == []


def test_a_plain_startproject_breaks_nothing(tmp_path: Path) -> None:
    """DEBUG is on, so that localhost is answered without ALLOWED_HOSTS; that is not safe, but it runs."""
    app = project(tmp_path, "DEBUG = True\nALLOWED_HOSTS = []\nSECRET_KEY = 'django-insecure-x'\n")
    assert {level for _, _, level in shown(app)} == {"unsafe", "could"}


def test_hashed_names_need_the_folder_of_their_list(tmp_path: Path) -> None:
    without = "\n".join(line for line in GOOD.splitlines() if not line.startswith("STATIC_ROOT"))
    hashed = 'STORAGES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}}'
    assert "needs STATIC_ROOT as well" in str(shown(project(tmp_path, f"{without}\n{hashed}\n")))


def documented() -> str:
    """Return the settings that docs/bring-your-app.md shows for the internet."""
    section = (ROOT / "docs/bring-your-app.md").read_text().split("\n## For the internet\n")[1]
    return section.split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize(("debug", "storage"), [("0", "ManifestStaticFilesStorage"), ("1", "StaticFilesStorage")])
def test_the_documented_settings_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: str, storage: str
) -> None:
    assert [finding for finding in findings(project(tmp_path, documented())) if finding.level != needs.COULD] == []
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
    found = shown(app)
    assert ("manage.py", "names shop.settings; here everything runs with shop.production", "could") in found
    assert [place for place, _, level in found if level == "breaks"] == ["shop/production.py:2"]
    # As .env then says, and with it the other settings do not count.
    assert {finding.level for finding in findings(app, settings="shop.settings")} == set()


@pytest.mark.parametrize("name", ["STORAGES", "LOGGING"])
def test_what_is_missing_is_named(tmp_path: Path, name: str) -> None:
    without = "\n".join(line for line in GOOD.splitlines() if not line.startswith(name))
    assert [place for place, *_ in shown(project(tmp_path, without))] == ["settings"]


def test_a_package_of_settings_is_read_whole(tmp_path: Path) -> None:
    app = project(tmp_path)
    (app / "shop/settings.py").rename(app / "shop/base.py")
    (app / "shop/settings").mkdir()
    (app / "shop/base.py").rename(app / "shop/settings/base.py")
    (app / "shop/settings/production.py").write_text("from .base import *\nDEBUG = True\n")
    (app / "manage.py").write_text('os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings.production")\n')
    assert [place for place, *_ in shown(app)] == ["shop/settings/production.py:2"]


@pytest.mark.parametrize(
    ("requirements", "place", "text", "level"),
    [
        ("Django\npsycopg2==2.9\n", "requirements.txt:2", "build: libpq-dev", "breaks"),
        ("Django\nmysqlclient\n", "requirements.txt:2", "build: default-libmysqlclient-dev", "breaks"),
        ("psycopg[c,pool]==3.3\n", "requirements.txt:1", "build: libpq-dev", "breaks"),
        ("Django\nweasyprint\n", "requirements.txt:2", "libpango-1.0-0", "could"),
        ("Django\ngunicorn\n", "requirements.txt:2", "gunicorn is not needed", "could"),
        ("-r requirements/base.txt\n", "requirements/base.txt:2", "whitenoise is not needed", "could"),
        ("Django==3.2.25\n", "requirements.txt", "PYTHON_IMAGE=debian:bookworm-slim", "breaks"),
    ],
)
def test_requirements_are_read(tmp_path: Path, requirements: str, place: str, text: str, level: str) -> None:
    app = project(tmp_path, requirements=requirements)
    (app / "requirements").mkdir()
    (app / "requirements/base.txt").write_text("# common\nwhitenoise[brotli]>=6\n")
    ((found_place, found_text, found_level),) = shown(app)
    assert (found_place, found_level) == (place, level)
    assert text in found_text


def test_packages_of_debian_that_are_listed_are_not_named(tmp_path: Path) -> None:
    app = project(tmp_path, requirements="mysqlclient\n")
    (app / "apt-packages.txt").write_text("build: default-libmysqlclient-dev\nbuild: pkg-config\nlibmariadb3\n")
    assert shown(app) == []


@pytest.mark.parametrize(
    ("specifiers", "admitted"),
    [
        (">=3.10", True),
        (">=3.10,<3.14", True),
        ("==3.13.*", True),
        ("^3.11", True),
        ("~=3.10", True),
        (">=3", True),
        (">=3.14", False),
        ("==3.14.*", False),
        (">=3.9,<3.13", False),
        ("~3.12", False),
        ("!=3.13", False),
    ],
)
def test_another_python_is_named_before_the_build(tmp_path: Path, specifiers: str, admitted: bool) -> None:
    app = project(tmp_path)
    (app / "pyproject.toml").write_text(f'[project]\nrequires-python = "{specifiers}"\n')
    assert [level for _, _, level in shown(app)] == ([] if admitted else ["breaks"])


def test_nothing_of_the_project_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    app = project(tmp_path, f"{GOOD}open({str(witness)!r}, 'w')\n")
    assert shown(app) == []
    assert not witness.exists()


@pytest.mark.needs_sample
def test_make_adopt_says_what_to_do(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, "adopt")
    output = checkout.made("adopt")
    assert "WSGI module config.wsgi:application, settings config.settings" in output
    assert "Type: make up" in output
    with (checkout.folder / "app/config/settings.py").open("a") as settings:
        settings.write("DEBUG = True\n")
    assert "unsafe  config/settings.py:" in checkout.made("adopt")
    with (checkout.folder / "app/config/settings.py").open("a") as settings:
        settings.write('KEY = os.environ["OWN_KEY"]\n')
    refused = checkout.refused("adopt")
    assert "needs OWN_KEY. In project.env: OWN_KEY=..." in refused
    assert "docs/bring-your-app.md" in refused
    (checkout.folder / "app/config/settings.py").write_text("if:\n")
    checkout.environment["DJANGO_SETTINGS_MODULE"] = "config.settings"
    assert "config/settings.py\n        line 1: invalid syntax" in checkout.make("adopt").stdout


# As linkding's: everything is left out but what is named
ONLY = "# Ignore everything\n*\n\n!/shop\n!/manage.py\n!requirements.txt\n"


@pytest.mark.parametrize(
    ("lines", "left_out"),
    [
        ("", []),
        ("*.pyc\n**/__pycache__\nrequirements-dev.txt\nmanage.pyc\n", []),
        (ONLY, ["apt-packages.txt", "data"]),
        (f"{ONLY}!apt-packages.txt\n!/data/\n", []),
        ("**/*.txt\n", ["apt-packages.txt", "requirements.txt"]),
        ("!*.txt\n./manage.p?\n", ["manage.py"]),
    ],
)
def test_what_the_projects_dockerignore_keeps_from_the_build(tmp_path: Path, lines: str, left_out: list[str]) -> None:
    """The build would miss it without a word, since it is there."""
    app = project(tmp_path, GOOD)
    (app / "apt-packages.txt").write_text("libpq5\n")
    (app / "data").symlink_to("/data")
    (app / ".dockerignore").write_text(lines)
    texts = [text for place, text, level in shown(app) if (place, level) == (".dockerignore", "breaks")]
    assert sorted(text.rpartition("!")[2] for text in texts) == left_out
