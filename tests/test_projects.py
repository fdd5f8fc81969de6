"""Projects that differ from the sample: each is put into app/, built and served, and nothing else changes."""

from __future__ import annotations

import base64
import functools
import hashlib
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from tests.support.site import Site
from tests.support.stack import ROOT, run

PRINT_USERS = "from django.contrib.auth.models import User; print(User.objects.get())"
UV = Path(sys.executable).with_name("uv")


class Shape(Site):
    """A copy of this repository into which somebody's project is put."""

    def __init__(self, folder: Path, transport: str) -> None:
        super().__init__(folder, transport)
        self.project += "-shape"
        self.environment["COMPOSE_PROJECT_NAME"] = self.project
        del self.environment["UWSGI_MODULE"]
        shutil.rmtree(self.folder / "app")

    def bring(self, name: str, place: str = "app") -> Path:
        """Copy a project of tests/projects into app/, or elsewhere."""
        return Path(shutil.copytree(ROOT / "tests/projects" / name, self.folder / place))

    def start_project(self, package: str, *command: str) -> Path:
        """Have a project made in app/ by the command of a package from PyPI, as its own tutorial says."""
        app = self.folder / "app"
        app.mkdir()
        done = run(str(UV), "tool", "run", "--quiet", "--from", package, *command, ".", cwd=app, seconds=280)
        assert done.returncode == 0, done.stderr
        return app

    def first_answer(self, path: str, **settings: str) -> requests.Response:
        """Set these settings in .env, start, and return the first answer to a page. Prints what it took."""
        for name, value in settings.items():
            self.set(name, value)
        began = time.monotonic()
        self.up()
        answer = self.get(path)
        seconds = time.monotonic() - began
        typed = " ".join(f"{name}={value}" for name, value in settings.items())
        verb = "make up-tcp" if self.transport == "tcp" else "make up-unix"
        print(f".env: {typed}; {verb}: {answer.status_code} after {seconds:.0f} s; {len(self.changed())} files changed")
        assert self.changed() == []
        return answer

    def changed(self) -> list[str]:
        """Return the files of the stack, app/ apart, that are not as we ship them."""
        listed = run("git", "ls-files").stdout.split()
        return [
            name
            for name in listed
            if not name.startswith("app/")
            and (ROOT / name).is_file()
            and (self.folder / name).read_bytes() != (ROOT / name).read_bytes()
        ]

    def stylesheet(self, page: str) -> requests.Response:
        """Return the answer to the first stylesheet that a page asks for."""
        return self.get(page.split('rel="stylesheet" href="')[1].split('"', maxsplit=1)[0])

    def exec(self, *command: str) -> str:
        """Return what a command prints in the uwsgi container. Fails if it fails."""
        done = run("docker", "exec", self.uwsgi()[0], *command)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def shape(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shape]:
    """A copy of this repository with an empty place where app/ was; over TCP if the test does not say."""
    made = Shape(tmp_path, getattr(request, "param", "tcp"))
    try:
        yield made
    finally:
        made.remove()


both = pytest.mark.parametrize("shape", [pytest.param("tcp", marks=pytest.mark.slow), "unix-socket"], indirect=True)


@both
def test_a_plain_startproject(shape: Shape) -> None:
    """As `django-admin startproject` leaves it: DEBUG on, no STATIC_ROOT, SQLite next to manage.py."""
    app = shape.start_project("Django", "django-admin", "startproject", "shop")
    # As Windows PowerShell writes the output of pip freeze
    (app / "requirements.txt").write_text("Django\n", encoding="utf-16")
    # Nothing imports it, so it stops nothing.
    (app / "old.py").write_text("print 'Python 2'\n")
    login = shape.first_answer("/admin/login/")
    assert login.status_code == 200
    assert shape.stylesheet(login.text).headers["Content-Type"].startswith("text/css")
    shape.made("manage", "CMD=createsuperuser --noinput --username ada --email ada@example.com")
    # In the volume, so it survives.
    shape.made("down")
    shape.up()
    assert "ada" in shape.exec("python", "manage.py", "shell", "-v0", "-c", PRINT_USERS)


@pytest.mark.slow
def test_django_4_2(shape: Shape) -> None:
    app = shape.start_project("Django~=4.2.0", "django-admin", "startproject", "shop")
    (app / "requirements.txt").write_text("Django~=4.2.0\n")
    login = shape.first_answer("/admin/login/")
    assert login.status_code == 200
    assert shape.stylesheet(login.text).status_code == 200
    assert shape.exec("python", "-m", "django", "--version").startswith("4.2")


@both
@pytest.mark.slow
def test_several_settings_and_a_dockerfile_of_its_own(shape: Shape) -> None:
    """manage.py and wsgi.py name different settings, requirements lie in a folder, variables are its own."""
    shape.bring("several-settings")
    own = "SECRET_KEY='a key that only this project knows how to read'\n"  # pragma: allowlist secret
    own += "ALLOWED_HOSTS=localhost\n"
    (shape.folder / "project.env").write_text(own)
    page = shape.first_answer("/", DJANGO_SETTINGS_MODULE="config.settings.production")
    assert page.status_code == 200
    style = shape.stylesheet(page.text)
    assert style.status_code == 200
    assert "immutable" in style.headers["Cache-Control"]
    # The own variables are a secret of the build.
    image = f"{shape.project}-uwsgi:latest"
    assert "knows how to read" not in run("docker", "image", "history", "--no-trunc", image).stdout
    assert run("docker", "run", "--rm", image, "sh", "-c", "ls -a /app").stdout.split().count(".env") == 0
    # The project has no /healthz: uwsgi answers for it.
    assert shape.exec("healthcheck.py") == "/healthz answers 200\n"


def wheel(file: Path) -> None:
    """Write a package as a project keeps it that is on no index."""
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tally.py", "")
        archive.writestr("tally-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tally\nVersion: 1\n")
        archive.writestr("tally-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\nRoot-Is-Purelib: true\n")
        archive.writestr("tally-1.dist-info/RECORD", "")


# All that a project may ask for at once, in one build
BUILD = "mkdir -p assets && python -c 'import django' && echo 'body { color: #123456 }' >assets/built.css"
RELEASE = (
    "python manage.py migrate --noinput && python manage.py migrate --noinput --database archive "
    "&& python manage.py createcachetable"
)
PASSWORD = "pa$word # 'x'"
OWN = """SHOP_PASSWORD="pa\\$word # 'x'"
SHOP_CERTIFICATE="-----BEGIN CERTIFICATE-----
MIIB
-----END CERTIFICATE-----"
"""


@pytest.mark.slow
def test_a_project_elsewhere_with_manage_py_below_and_steps_of_its_own(shape: Shape) -> None:
    app = shape.bring("backend-below", "elsewhere")
    (app / ".env.production").write_text("SECRET=1\n")
    (app / "backend/tls.pem").write_text("-----BEGIN PRIVATE KEY-----\n")  # pragma: allowlist secret
    (app / "backend/ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (app / "node_modules/left-pad").mkdir(parents=True)
    (app / "node_modules/left-pad/index.js").write_text("")
    wheel(app / "wheels/tally-1-py3-none-any.whl")
    (app / "requirements.txt").open("a").write("./wheels/tally-1-py3-none-any.whl\n")
    (shape.folder / "project.env").write_text(OWN)
    shape.first_answer("/", PROJECT_DIR=str(app), BUILD_COMMAND=f'"{BUILD}"', RELEASE_COMMAND=RELEASE)
    answer = requests.get(
        f"http://localhost:{shape.environment['HTTP_PORT']}/", headers={"Accept-Language": "de"}, timeout=20
    ).json()
    # One environment in the build and at run time, with $, #, quotes and several lines
    assert answer["password"] == hashlib.sha256(PASSWORD.encode()).hexdigest()
    assert answer["certificate"] == 2
    # Only the .po file is in the project.
    assert answer["greeting"] == "Guten Tag"
    assert answer["cache"] == "cached"
    assert answer["archived"] == 0
    # What the build command has written, under the name that a list in /public_collected gives it
    assert shape.get(answer["style"]).text == "body { color: #123456 }\n"
    assert shape.exec("python", "-c", "import tally; print(tally.__name__)") == "tally\n"
    # pip has installed a program of the same name.
    assert "this is not the server" in run("docker", "exec", shape.uwsgi()[0], "/venv/bin/uwsgi").stderr
    found = shape.exec("find", "/app", "-name", ".env*", "-o", "-name", "*.pem", "-o", "-name", "node_modules")
    assert found.split() == ["/app/backend/ca.pem"]
    # Everything is in the volume.
    assert {"shop.sqlite3", "archive.sqlite3"} <= set(shape.exec("ls", "/data").split())


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["poetry", "pdm", "pipenv"])
def test_the_lock_of_another_tool(shape: Shape, tool: str) -> None:
    """Exported by the tool itself: without what is only for development, and with its hashes."""
    if tool == "pipenv":
        app = shape.bring("locked-by-uv")
        (app / "pyproject.toml").unlink()
        (app / "Pipfile").write_text('[packages]\ndjango = "~=5.2"\n[dev-packages]\niniconfig = "*"\n')
        assert run(str(UV), "tool", "run", "--quiet", "pipenv", "lock", cwd=app, seconds=200).returncode == 0
    else:
        app = shape.bring(f"locked-by-{tool}")
    if tool == "pdm":
        # As a packaged project has it; manage.py knows nothing of it.
        (app / "src").mkdir()
        (app / "shop").rename(app / "src/shop")
    assert shape.first_answer("/").json() == {"shop": "open"}
    assert shape.exec("python", "-m", "django", "--version").startswith("5.2.")
    assert "iniconfig" not in shape.exec("sh", "-c", "ls /venv/lib/python3*/site-packages"), "for development only"


@pytest.mark.slow
def test_a_lock_of_uv_and_neither_static_files_nor_a_database(shape: Shape) -> None:
    app = shape.bring("locked-by-uv")
    assert run(str(UV), "lock", "--quiet", cwd=app).returncode == 0
    answer = shape.first_answer("/")
    assert answer.json() == {"shop": "open"}
    assert shape.get("/static/none.css").status_code == 404
    locked = (app / "uv.lock").read_text()
    assert f'version = "{shape.exec("python", "-m", "django", "--version").strip()}"' in locked
    assert "iniconfig" not in shape.exec("sh", "-c", "ls /venv/lib/python3*/site-packages"), "for development only"


@pytest.mark.slow
def test_uploads_next_to_the_source(shape: Shape) -> None:
    """They go to the volume, nginx serves them in a sandbox, and a new release finds them there.

    Static files that belong in a bucket are not sent there by a build.
    """
    shape.bring("uploads")
    assert shape.first_answer("/").status_code == 200
    place = requests.post(
        f"http://localhost:{shape.environment['HTTP_PORT']}/upload",
        files={"file": ("cat.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")},
        timeout=20,
    ).text
    assert place == "/media/cat.svg"
    (shape.folder / "app/shop/urls.py").open("a").write("# a new release\n")
    shape.made("deploy")
    served = shape.get(place)
    assert served.status_code == 200
    assert "sandbox" in served.headers["Content-Security-Policy"]
    assert shape.get("/").text == "cat.svg"


class PrivateIndex(SimpleHTTPRequestHandler):
    """An index with one package, for those who know the password."""

    def do_GET(self) -> None:
        """Answer, or ask who it is."""
        if self.headers.get("Authorization") == f"Basic {base64.b64encode(b'ada:lovelace').decode()}":
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()


def repository(bare: Path) -> None:
    """Make a repository of a package, as a web server serves it."""
    work = bare.with_suffix("")
    work.mkdir()
    (work / "pyproject.toml").write_text(
        '[project]\nname = "shelf"\nversion = "1"\n[tool.setuptools]\npy-modules = ["shelf"]\n'
    )
    (work / "shelf.py").write_text("")
    author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    for words in (
        ("init", "--quiet"),
        ("add", "."),
        (*author, "commit", "--quiet", "--message", "First"),
        ("clone", "--quiet", "--bare", ".", str(bare)),
        ("--git-dir", str(bare), "update-server-info"),
    ):
        assert run("git", *words, cwd=work).returncode == 0


@pytest.fixture
def private_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address, as a build reaches it, of an index that has the package `tally`, and the repository `shelf`."""
    folder = tmp_path_factory.mktemp("index")
    wheel(folder / "tally/tally-1-py3-none-any.whl")
    repository(folder / "shelf.git")
    gateway = run("docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").stdout
    server = ThreadingHTTPServer((gateway.strip(), 0), functools.partial(PrivateIndex, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{gateway.strip()}:{server.server_port}/"
    server.shutdown()


@pytest.mark.slow
def test_a_private_index_and_a_private_repository_with_a_password(shape: Shape, private_index: str) -> None:
    app = Path(shutil.copytree(ROOT / "tests/probe", shape.folder / "app"))
    host = private_index.split("/")[2].partition(":")[0]
    (app / "requirements.txt").write_text(
        f"--trusted-host {host}\nDjango~=6.1.0\ntally\nshelf @ git+{private_index}shelf.git\n"
    )
    netrc = shape.folder / "netrc"
    netrc.write_text(f"machine {host} login ada password lovelace\n")
    assert shape.first_answer("/version", PIP_EXTRA_INDEX_URL=private_index, NETRC=str(netrc)).text == "first"
    assert shape.exec("python", "-c", "import shelf, tally; print(tally.__name__)") == "tally\n"
    history = run("docker", "image", "history", "--no-trunc", f"{shape.project}-uwsgi:latest").stdout
    assert "lovelace" not in history


@pytest.mark.slow
def test_the_python_of_another_debian(shape: Shape) -> None:
    """For a project that does not run on 3.13: Django 3.2 imports a module that it no longer has."""
    app = shape.start_project("Django~=4.2.0", "django-admin", "startproject", "shop")
    (app / "requirements.txt").write_text("Django==3.2.25\n")
    assert "In .env: PYTHON_IMAGE=debian:bookworm-slim" in shape.make("adopt").stdout
    assert shape.first_answer("/admin/login/", PYTHON_IMAGE="debian:bookworm-slim").status_code == 200
    assert shape.exec("python", "--version").startswith("Python 3.11.")
    # Its tarfile is older than the argument that keeps an archive within its folder.
    (shape.folder / "uploads").mkdir()
    (shape.folder / "uploads/dog.txt").write_text("a dog")
    assert "1 files copied" in shape.made("bring-media", "FROM=uploads")
    assert shape.get("/media/dog.txt").text == "a dog"


@pytest.mark.slow
def test_wagtail(shape: Shape) -> None:
    """A published project, as its own `wagtail start` makes it, with its own Dockerfile."""
    shape.start_project("wagtail", "wagtail", "start", "shop")
    login = shape.first_answer("/admin/login/", DJANGO_SETTINGS_MODULE="shop.settings.dev")
    assert login.status_code == 200
    assert shape.get("/").status_code == 200
    assert shape.stylesheet(login.text).headers["Content-Type"].startswith("text/css")


@pytest.mark.slow
def test_a_requirement_that_is_compiled_against_a_debian_library(shape: Shape) -> None:
    app = Path(shutil.copytree(ROOT / "tests/probe", shape.folder / "app"))
    (app / "requirements.txt").write_text("Django~=6.1.0\npsycopg2==2.9.11\n")
    (app / "apt-packages.txt").write_text("# PostgreSQL's client\nlibpq5\nbuild: libpq-dev\n")
    shape.append("wsgi.py", "import psycopg2  # noqa: E402, F401")
    assert shape.first_answer("/version").text == "first"
    container = shape.uwsgi()[0]
    assert run("docker", "exec", container, "dpkg-query", "--show", "libpq5").returncode == 0
    assert run("docker", "exec", container, "dpkg-query", "--show", "libpq-dev").returncode != 0
    assert run("docker", "exec", container, "sh", "-c", "command -v gcc").returncode != 0
    setuid = run("docker", "exec", container, "find", "/usr", "-xdev", "-type", "f", "-perm", "/6000")
    assert setuid.stdout == ""
