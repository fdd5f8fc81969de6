"""Ways to break a release or a configuration, and what `make deploy` or `make up` must say of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.site import Site
from tests.support.stack import ROOT


@dataclass(frozen=True)
class Break:
    """One way: its name, the deed, and a part of the message."""

    name: str
    do: Callable[[Site], None]
    message: str


def failing_import(site: Site) -> None:
    """Import what is not there."""
    site.append("wsgi.py", "import nothing_of_that_name")


def wrong_settings(site: Site) -> None:
    """Name a module of addresses that is not there."""
    site.append("settings.py", 'ROOT_URLCONF = "probe.no_such_urls"')


def failing_migration(site: Site) -> None:
    """Add a migration that raises."""
    add_migration(site, "raise RuntimeError('this migration fails')")


def add_migration(site: Site, statement: str) -> None:
    """Add a migration that runs this statement."""
    site.append("settings.py", 'INSTALLED_APPS += ["probe"]')
    folder = site.folder / "app/probe/migrations"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "0001_fails.py").write_text(
        "from django.db import migrations\n\n"
        f"def fail(apps, schema_editor):\n    {statement}\n\n"
        "class Migration(migrations.Migration):\n    operations = [migrations.RunPython(fail)]\n"
    )


def failing_health(site: Site) -> None:
    """Answer the health check with 500."""
    site.append("urls.py", 'urlpatterns.insert(0, path("healthz", views.fail))')


# What the import check cannot see, since it is no worker: the trial must.
ONLY_IN_A_WORKER = "try:\n    import uwsgi\nexcept ImportError:\n    pass\nelse:\n    "


def hang(site: Site) -> None:
    """Hang while the server starts."""
    site.append("wsgi.py", f"{ONLY_IN_A_WORKER}import time; time.sleep(600)")


def too_much_memory(site: Site) -> None:
    """Take more than the memory limit while the server starts."""
    site.append("wsgi.py", f'{ONLY_IN_A_WORKER}hog = b"x" * (1 << 30)')


def failing_image(site: Site) -> None:
    """Require what does not exist."""
    (site.folder / "app/requirements.txt").write_text("no-such-thing-as-this==1.0\n")


BREAKS = (
    Break("import error", failing_import, "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    Break("wrong settings", wrong_settings, "No module named 'probe.no_such_urls'"),
    Break("failing migration", failing_migration, "RuntimeError: this migration fails"),
    Break("health check answers 500", failing_health, "unhealthy"),
    Break("hang at start", hang, "does not become healthy"),
    Break("memory limit met at start", too_much_memory, "memory limit"),
    Break("image does not build", failing_image, "No matching distribution found for no-such-thing-as-this==1.0"),
)


def replaced(file: str, old: str, new: str) -> Callable[[Site], None]:
    """Return the deed that replaces a text in a file."""

    def do(site: Site) -> None:
        path = site.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return do


def missing_variable(site: Site) -> None:
    """Ask the environment for what it does not have."""
    site.append("settings.py", 'os.environ["WHICH_IS_NOT_SET"]')


MISSPELT = "[strict-mode] unknown config directive: mastre"
# For `make up`, which takes in the files of nginx/, sockets/ and uwsgi/ as well
WRONG = (
    Break("failing migration", failing_migration, "RuntimeError: this migration fails"),
    Break(
        "misspelt nginx directive",
        replaced("nginx/http/client-limits.conf", "limit_req_status", "limit_req_statuss"),
        'unknown directive "limit_req_statuss"',
    ),
    Break(
        "misspelt uwsgi.ini option",
        replaced("uwsgi/uwsgi.ini", "master = true", "master = true\nmastre = true"),
        MISSPELT,
    ),
    Break(
        "misspelt uwsgi-socket.ini option",
        replaced("sockets/uwsgi-socket.ini", "master = true", "master = true\nmastre = true"),
        MISSPELT,
    ),
    Break("missing variable", missing_variable, "WHICH_IS_NOT_SET"),
)
CONFIGURATION = ("nginx/http/client-limits.conf", "uwsgi/uwsgi.ini", "sockets/uwsgi-socket.ini")


def put_back(site: Site) -> None:
    """Undo a break."""
    site.restore()
    for file in CONFIGURATION:
        shutil.copyfile(ROOT / file, site.folder / file)
