"""What is backed up comes back, row by row and file by file; what cannot be restored changes nothing and says why."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from backup import __main__ as backup_main
from backup import databases, nightly, repository, restore, save
from backup.places import Failed
from ops import backup as ops_backup
from ops import base_image
from ops import restore as ops_restore
from ops import stack as ops_stack
from ops.console import Stop
from tests.support.breaks import add_migration
from tests.support.site import Site
from tests.support.stack import ROOT, run, wait_until

# Every table with all its rows, and every file with its checksum, but for what is no part of a backup
FINGERPRINT = """
import hashlib, json, os, sqlite3
found = {}
for place, folders, files in os.walk("/data"):
    folders[:] = [name for name in folders if name not in (".backup", "backup")]
    for path in (os.path.join(place, name) for name in files):
        if path.endswith(".sqlite3"):
            database = sqlite3.connect(path)
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                rows = sorted(map(repr, database.execute(f'SELECT * FROM "{table}"')))
                found[f"{path} {table}"] = [len(rows), hashlib.sha256(repr(rows).encode()).hexdigest()]
        elif not path.endswith(("-wal", "-shm")):
            found[path] = hashlib.sha256(open(path, "rb").read()).hexdigest()
print(json.dumps(found))
"""
# Signed with the site's secret key
SESSION = """
from django.contrib.sessions.backends.db import SessionStore
session = SessionStore()
session["name"] = "ada"
session.save()
print(session.session_key)
"""
COUNT_USERS = "SELECT count(*) FROM auth_user"
USERS = """
from django.contrib.auth.models import User
User.objects.bulk_create(User(username=f"user-{{number}}-{first}") for number in range({count}))
"""


def python(site: Site, code: str) -> str:
    """Return what a program prints in the uwsgi container."""
    done = run("docker", "exec", site.uwsgi()[0], "python", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def shell(site: Site, code: str) -> str:
    """Return what a program prints in Django's shell."""
    done = run("docker", "exec", site.uwsgi()[0], "python", "manage.py", "shell", "-v0", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fingerprint(site: Site) -> dict[str, Any]:
    """Return what is in the volumes."""
    return dict(json.loads(python(site, FINGERPRINT)))


def users_in(site: Site, file: str) -> int:
    """Return how many users a database has."""
    return int(python(site, f"import sqlite3; print(*sqlite3.connect('{file}').execute({COUNT_USERS!r}).fetchone())"))


def add_users(site: Site, count: int = 3) -> None:
    """Write rows."""
    shell(site, USERS.format(first=time.time_ns(), count=count))


def upload(site: Site, name: str, content: bytes) -> str:
    """Upload a file and return its address."""
    address = f"http://localhost:{site.environment['HTTP_PORT']}/upload/{name}"
    return requests.post(address, data=content, timeout=20).text


def last(site: Site) -> dict[str, Any]:
    """Return what is written down of the last backup."""
    return dict(json.loads((site.folder / "backups/last.json").read_text()))


def latest(site: Site) -> str:
    """Return the id of the last good backup."""
    return str(last(site)["id"])


def in_container(site: Site, script: str) -> None:
    """Run a shell script in the uwsgi container."""
    done = run("docker", "exec", site.uwsgi()[0], "sh", "-euc", script)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def saved(site: Site) -> Site:
    """A site that serves, with rows, uploads and private files, of which the last backup is good."""
    site.made("up")
    if not (site.folder / "backups/last.json").exists():
        add_users(site)
        upload(site, "cat.txt", b"a cat")
        in_container(
            site,
            "mkdir -p /data/media/deep/er /data/notes && echo far >'/data/media/deep/er/a name [with] *.txt' && "
            "echo mine >/data/private/secret.txt && echo note >/data/notes/n.txt && touch /data/empty.txt",
        )
        (site.folder / "project.env").write_text("COLOUR=blue\n")
        site.made("backup")
        site.fingerprint = fingerprint(site)  # type: ignore[attr-defined]
    if site.fingerprint != (now := fingerprint(site)):  # type: ignore[attr-defined]
        site.made("backup")
        site.fingerprint = now  # type: ignore[attr-defined]
    return site


@pytest.mark.timeout(600)
@pytest.mark.one_transport
def test_a_backup_is_restored_on_an_empty_machine(saved: Site, tmp_path: Path) -> None:
    """While clients write and upload; what they write after the backup is not in it."""
    session = shell(saved, SESSION)
    with saved.load() as load:
        before = fingerprint(saved)
        saved.made("backup")
    assert load.lost() == []
    other = Site(tmp_path, saved.transport, "backup-elsewhere")
    try:
        shutil.copytree(saved.folder / "backups", other.folder / "backups")
        (other.folder / "secrets").mkdir(mode=0o700)
        shutil.copy(saved.folder / "secrets/backup_password", other.folder / "secrets/backup_password")
        said = other.made("restore", "FROM=latest")
        assert "Laid back .env" in said
        assert fingerprint(other) == before
        assert other.get("/media/cat.txt").text == "a cat"
        for name in (".env", "project.env", "secrets/django_secret_key"):
            assert (other.folder / name).read_bytes() == (saved.folder / name).read_bytes(), name
        code = f"from django.contrib.sessions.backends.db import SessionStore as S; print(S('{session}')['name'])"
        assert shell(other, code) == "ada"
        assert (other.folder / "project.env").stat().st_mode & 0o077 == 0
        # It goes on where it is now.
        other.made("backup")
        assert len(other.made("backups").splitlines()) == len(saved.made("backups").splitlines()) + 1
    finally:
        other.remove()


@pytest.mark.slow_on_tcp
def test_a_restore_loses_no_request_and_keeps_what_it_replaced(saved: Site) -> None:
    before = fingerprint(saved)
    later = upload(saved, "later.txt", b"after the backup")
    add_users(saved)
    changed = fingerprint(saved)
    with saved.load() as load:
        said = saved.made("restore", "FROM=latest")
    assert load.lost() == []
    assert fingerprint(saved) == before
    assert saved.get(later).text == "the project's own later.txt"
    (kept,) = re.findall(r"What it replaced is kept for a week: .*(replaced-[\d-]+) ", said)
    place = f"/data/media/.backup/{kept}/later.txt"
    assert python(saved, f"print(open('{place}').read())") == "after the backup"
    # The database as well, with what was only in its -wal file
    assert users_in(saved, f"/data/.backup/{kept}/probe.sqlite3") == changed["/data/probe.sqlite3 auth_user"][0]


@pytest.mark.slow
@pytest.mark.one_transport
def test_make_clean_leaves_the_backups_and_they_restore(saved: Site) -> None:
    before = fingerprint(saved)
    count = len(saved.made("backups").splitlines())
    saved.made("clean", "CONFIRM=1")
    assert not saved.containers()
    assert len(list((saved.folder / "backups/repository/snapshots").iterdir())) == count - 1
    saved.made("restore", "FROM=latest")
    assert fingerprint(saved) == before


@pytest.mark.slow
@pytest.mark.one_transport
def test_from_is_a_day_or_an_id_and_says_what_there_is(saved: Site) -> None:
    today = time.strftime("%F", time.gmtime(last(saved)["good"]))
    assert latest(saved) in saved.made("restore", f"FROM={latest(saved)}")
    assert f" of {today} " in saved.made("restore", f"FROM={today}")
    for wanted in ("2001-01-01", "ffffffff", "yesterday"):
        said = saved.refused("restore", f"FROM={wanted}")
        assert f"There is no good backup '{wanted}'. The last days that have one: {today}" in said
    assert "Which backup?" in saved.refused("restore")


@pytest.mark.slow
@pytest.mark.one_transport
def test_settings_that_are_here_stay_and_differences_are_named(saved: Site) -> None:
    env = saved.folder / "project.env"
    env.write_text("COLOUR=green\n")
    said = saved.made("restore", "FROM=latest")
    assert env.read_text() == "COLOUR=green\n"
    assert "Kept as they are here, though the backup has others: project.env" in said
    env.unlink()
    assert "Laid back project.env" in saved.made("restore", "FROM=latest")
    assert env.read_text() == "COLOUR=blue\n"
    # They serve as well.
    assert "COLOUR=blue" in run("docker", "exec", saved.uwsgi()[0], "env").stdout.splitlines()
    env.unlink()
    with another_engine(saved):
        assert "Taken away again: project.env" in saved.refused("restore", f"FROM={latest(saved)}")
    assert not env.exists()
    env.write_text("COLOUR=blue\n")


@contextmanager
def wrong_password(site: Site) -> Iterator[None]:
    """Put another password in place of the right one."""
    file = site.folder / "secrets/backup_password"
    right = file.read_text()
    file.write_text("not-the-one\n")
    try:
        yield
    finally:
        file.write_text(right)


@contextmanager
def torn_packs(site: Site) -> Iterator[None]:
    """Cut the second half off every pack."""
    data, kept = site.folder / "backups/repository/data", site.folder / "kept"
    shutil.copytree(data, kept)
    for pack in (path for path in data.rglob("*") if path.is_file()):
        content = pack.read_bytes()
        pack.chmod(0o600)
        pack.write_bytes(content[: len(content) // 2])
    try:
        yield
    finally:
        shutil.rmtree(data)
        kept.rename(data)
        run("chown", "-R", "10001:10001", str(data))


@contextmanager
def another_engine(site: Site) -> Iterator[None]:
    """Have the site's database elsewhere."""
    site.environment["DATABASE_URL"] = "postgres://db/shop"
    try:
        yield
    finally:
        del site.environment["DATABASE_URL"]


@contextmanager
def no_password(site: Site) -> Iterator[None]:
    """Lose the password."""
    file = site.folder / "secrets/backup_password"
    kept = file.rename(site.folder / "password")
    try:
        yield
    finally:
        kept.rename(file)


@contextmanager
def anothers_folder(site: Site) -> Iterator[None]:
    """Make a folder of uploads that the site's user cannot rename."""
    mount = ("--volume", f"{site.project}_media:/m")
    as_root = ("docker", "run", "--rm", "--network", "none", *mount, "debian:trixie-slim")
    run(*as_root, "mkdir", "/m/root")
    try:
        yield
    finally:
        run(*as_root, "rmdir", "/m/root")


@pytest.mark.one_transport
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (wrong_password, "The password in secrets/backup_password does not open backups/"),
        pytest.param(torn_packs, "Nothing was changed", marks=pytest.mark.slow),
        pytest.param(another_engine, "DATABASE_URL in .env names postgres", marks=pytest.mark.slow),
        pytest.param(no_password, "secrets/backup_password is missing", marks=pytest.mark.slow),
        pytest.param(anothers_folder, "/data/media/root belongs to another user", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_restored_changes_nothing_and_says_why(
    saved: Site, broken: Callable[[Site], Any], said: str
) -> None:
    before, serving = fingerprint(saved), saved.uwsgi()
    with broken(saved):
        assert said in saved.refused("restore", "FROM=latest")
        assert {name: value for name, value in fingerprint(saved).items() if name in before} == before
    assert saved.uwsgi() == serving
    assert saved.get("/media/cat.txt").text == "a cat"
    in_container(saved, "test ! -e /data/.backup/restoring && test ! -e /data/media/.backup/restoring")


@pytest.mark.slow
@pytest.mark.one_transport
def test_what_does_not_serve_is_changed_back(saved: Site) -> None:
    """The code cannot start on what is restored, as after a deploy of a version that needs more of the database."""
    add_users(saved)
    before = fingerprint(saved)
    # Fails once the rows that are there now are gone.
    users = before["/data/probe.sqlite3 auth_user"][0]
    counted = f"sqlite3.connect('/data/probe.sqlite3').execute({COUNT_USERS!r}).fetchone()[0]"
    code = f"import sqlite3\nassert {counted} >= {users}, 'too few users'"
    try:
        saved.append("wsgi.py", code)
        saved.made("deploy")
        said = saved.refused("restore", "FROM=latest")
        assert "Not restored: what was there before is back" in said
        assert "does not become healthy" in said
        assert fingerprint(saved) == before
        assert saved.get("/media/cat.txt").text == "a cat"
    finally:
        saved.restore()
        saved.made("deploy")


def container_of(site: Site, word: str) -> str:
    """Return the container of the service `backup` that runs with this word, an empty text if there is none."""
    for name in site.containers("backup", "--filter", "status=running"):
        if word in json.loads(run("docker", "inspect", "--format", "{{json .Config.Cmd}}", name).stdout or "[]"):
            return name
    return ""


@pytest.mark.slow
@pytest.mark.one_transport
@pytest.mark.parametrize("seconds", [0, 0.7, 1.4])
def test_a_backup_that_is_killed_is_made_by_the_next_one(saved: Site, seconds: float) -> None:
    before, good = fingerprint(saved), latest(saved)
    making = saved.under_way("backup")
    try:
        name = wait_until(lambda: container_of(saved, "now"), "it runs", 30)
        wait_until(lambda: last(saved)["result"] == "unfinished", "it has begun", 30)
        time.sleep(seconds)
        killed = run("docker", "kill", "--signal", "KILL", name)
        assert killed.returncode == 0, killed.stderr
    finally:
        assert making.wait(60) != 0
    assert making.stdout
    assert "It was killed, most likely at its memory limit" in making.stdout.read()
    assert last(saved)["result"] == "unfinished"
    assert fingerprint(saved) == before
    saved.made("backup")
    assert fingerprint(saved) == before
    listed = saved.made("backups")
    assert latest(saved) in listed
    assert "unchecked" not in listed
    assert f"    {good} of " in saved.made("restore", f"FROM={good}")


def read_until(process: subprocess.Popen[str], words: str) -> None:
    """Read what it prints up to a line that begins with these words."""
    assert process.stdout
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.strip().startswith(words):
            return
    raise AssertionError("".join(seen))


def kill(site: Site, process: subprocess.Popen[str], *, client: bool) -> None:
    """Kill a restore: the command itself, or its container."""
    if client:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        killed = run("docker", "kill", "--signal", "KILL", wait_until(lambda: container_of(site, "restore"), "it", 30))
        assert killed.returncode == 0, killed.stderr


@pytest.mark.slow
@pytest.mark.one_transport
@pytest.mark.parametrize("client", [False, True], ids=["container", "command"])
@pytest.mark.parametrize("after", ["build", "restore next to what is there"])
def test_a_restore_that_is_killed_is_ended_by_the_next_one(saved: Site, after: str, client: bool) -> None:
    before = fingerprint(saved)
    later = upload(saved, "later.txt", b"after the backup")
    with saved.under_way("restore", "FROM=latest") as process:
        read_until(process, after)
        kill(saved, process, client=client)
        process.stdout.read()  # type: ignore[union-attr]
    assert process.returncode != 0
    # The workers may have stopped already.
    saved.made("up")
    now = fingerprint(saved)
    # All or nothing
    assert {name: value for name, value in now.items() if "later" not in name} == before
    saved.made("restore", "FROM=latest")
    assert fingerprint(saved) == before
    assert saved.get(later).text == "the project's own later.txt"


@pytest.mark.slow
@pytest.mark.one_transport
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "hung up"])
def test_a_restore_that_ends_in_its_migrations_leaves_a_site_that_serves(saved: Site, number: signal.Signals) -> None:
    """The backup is of an older release, so they run after the swap. A connection that drops takes the way back."""
    try:
        add_migration(saved, "__import__('time').sleep(5)")
        saved.made("deploy")
        add_users(saved)
        newer = fingerprint(saved)
        migration = ("--filter", "label=ops.migration", "--filter", "status=running")
        with saved.under_way("restore", "FROM=latest") as process:
            read_until(process, "restore next to what is there")
            wait_until(lambda: saved.containers("", *migration), "the migrations", 60)
            os.killpg(process.pid, number)
            process.stdout.read()  # type: ignore[union-attr]
        assert process.returncode != 0
        if number == signal.SIGKILL:
            # As docs/backup.md says
            saved.made("up")
        assert saved.get("/media/cat.txt").text == "a cat"
        assert (fingerprint(saved) == newer) is (number == signal.SIGHUP)
    finally:
        saved.restore()
        saved.made("deploy")
        saved.made("restore", "FROM=latest")


@pytest.mark.slow
@pytest.mark.one_transport
def test_half_a_swap_is_not_served(saved: Site) -> None:
    """As after a power failure within the renames."""
    before = fingerprint(saved)
    # One was put aside, one is in place already, and one is left of each.
    journal = {
        "old": ["/data/media/cat.txt", "/data/notes"],
        "new": ["/data/media/cat.txt", "/data/empty.txt"],
        "source": "restoring",
        "aside": "replaced-1",
    }
    in_container(
        saved,
        "cd /data && mkdir -p .backup/restoring .backup/replaced-1 media/.backup/restoring media/.backup/replaced-1 && "
        "mv media/cat.txt media/.backup/replaced-1 && echo new >media/.backup/restoring/cat.txt && "
        f"mv empty.txt .backup/restoring && echo '{json.dumps(journal)}' >.backup/swap.json",
    )
    cut_off = "restore was cut off in the middle of its swap"
    assert cut_off in saved.refused("doctor")
    assert cut_off in saved.refused("deploy")
    assert cut_off in saved.refused("backup").lower()
    (container,) = saved.uwsgi()
    run("docker", "restart", container)
    logs = ("docker", "logs", "--tail", "20", container)
    wait_until(lambda: cut_off in (said := run(*logs)).stdout + said.stderr, "uwsgi refuses", 30)
    said = saved.refused("restore", "FROM=latest")
    assert "That is ended: what it restored is in place, and what it replaced is kept: /data/.backup/replaced-1" in said
    saved.made("up")
    assert saved.get("/media/cat.txt").text == "new\n"
    in_container(saved, "test -e /data/empty.txt && test ! -e /data/notes && test -d /data/.backup/replaced-1/notes")
    saved.made("restore", "FROM=latest")
    assert fingerprint(saved) == before
    in_container(saved, "test -d /data/.backup/replaced-1/notes && rm -r /data/.backup/replaced-1")
    saved.made("backup")
    assert cut_off not in saved.make("doctor").stderr


@pytest.mark.slow
@pytest.mark.one_transport
def test_a_damaged_database_makes_a_suspect_backup_and_pushes_none_out(saved: Site) -> None:
    good = latest(saved)
    make = (
        "import sqlite3\n"
        "database = sqlite3.connect('/data/other.sqlite3')\n"
        "database.execute('CREATE TABLE t (a)')\n"
        "database.executemany('INSERT INTO t VALUES (?)', [('x' * 900,)] * 200)\n"
        "database.commit()\n"
        "database.close()\n"
        "file = open('/data/other.sqlite3', 'r+b')\n"
        "file.seek(4096 * 10)\n"
        "file.write(b'torn' * 1000)\n"
    )
    python(saved, make)
    try:
        said = saved.refused("backup")
        assert "The database /data/other.sqlite3 is damaged" in said
        listed = saved.made("backups")
        assert re.search(rf"^{good} .* good ", listed, re.MULTILINE)
        assert " suspect " in listed.splitlines()[-1]
        assert "the last backup" in saved.refused("doctor")
        assert "suspect" in saved.made("status")
        assert f"    {good} of " in saved.made("restore", "FROM=latest")
    finally:
        in_container(saved, "rm -f /data/other.sqlite3")
    saved.made("backup")
    assert "suspect:" not in saved.made("status")


@pytest.mark.slow
@pytest.mark.one_transport
@pytest.mark.parametrize("place", ["/backups", "/staging"])
def test_a_full_disk_is_said_and_forgets_nothing(saved: Site, place: str) -> None:
    """A small file system in memory, in place of the folder."""
    count = len(saved.made("backups").splitlines())
    upload(saved, "large.bin", os.urandom(3 << 20))
    in_container(saved, "head -c 3000000 /dev/urandom >/data/notes/large.bin")
    files = ["compose.yaml", f"compose.{saved.transport}.yaml", "overrides/backup.yaml"]
    small = saved.folder / "small.yaml"
    options = "{type: tmpfs, device: tmpfs, o: 'uid=10001,gid=10001,mode=0700,size=1m'}"
    small.write_text(
        f"services: {{backup: {{volumes: [{{type: volume, source: small, target: {place}}}]}}}}\n"
        f"volumes: {{small: {{driver_opts: {options}}}}}\n"
    )
    words = [word for file in [*files, "small.yaml"] for word in ("--file", file)]
    command = ["docker", "compose", *words, "run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", "backup", "-c"]
    # The settings are in the folder that is small now.
    script = "[ -d /staging/settings ] || { mkdir /staging/settings; echo '{}' >/staging/settings/about.json; "
    script += "head -c 950000 /dev/zero >/staging/settings/x; }; cd /usr/local/lib && exec python3 -sE -m backup now"
    done = run(*command, script, cwd=saved.folder, environment=saved.environment)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    full = "The disk is full. No older backup is forgotten."
    # Asked for beforehand, or, as with the settings in /staging, found when it is
    assert full in said or re.search(r"MB free\. .* Make room: df -h\. No older backup is forgotten", said), said
    assert len(saved.made("backups").splitlines()) == count
    saved.made("restore", "FROM=latest")


@pytest.mark.slow
@pytest.mark.one_transport
def test_a_backup_is_made_without_being_asked_for(saved: Site) -> None:
    """And its container can send nothing, and holds no password."""
    files = saved.environment["COMPOSE_FILE"]
    saved.environment["COMPOSE_FILE"] = f"{files}:overrides/backup.yaml"
    known = (saved.folder / "backups/last.json").read_text()
    try:
        (saved.folder / "backups/last.json").unlink()
        saved.made("up")
        wait_until(lambda: last(saved)["result"] == "good", "a backup", 90)
        (name,) = saved.containers("backup", "--filter", "status=running")
        told = json.loads(run("docker", "inspect", name).stdout)[0]
        host = told["HostConfig"]
        assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
        assert (told["Config"]["User"], host["SecurityOpt"]) == ("10001:10001", ["no-new-privileges:true"])
        password = (saved.folder / "secrets/backup_password").read_text().strip()
        history = run("docker", "history", "--no-trunc", told["Image"]).stdout
        assert password not in json.dumps(told) + history + run("docker", "logs", name).stdout
        # It stops at once, and a second start makes no second backup.
        began = time.monotonic()
        run("docker", "restart", name)
        assert time.monotonic() - began < 4
        assert "backup     good" in saved.made("status")
    finally:
        saved.environment["COMPOSE_FILE"] = files
        if not (saved.folder / "backups/last.json").exists():
            (saved.folder / "backups/last.json").write_text(known)
        saved.made("up")


# ---- without a container


@pytest.fixture
def volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three volumes with something in each, and other things that were restored next to them."""
    data = tmp_path / "data"
    ours = {".backup", "backup", "lost+found"}
    places = {data: ours | {"media", "private"}, data / "media": ours, data / "private": ours}
    for module in (restore, save):
        monkeypatch.setattr(module, "VOLUMES", places)
        monkeypatch.setattr(module, "DATA", data)
        monkeypatch.setattr(module, "JOURNAL", data / ".backup/swap.json")
    for folder in places:
        restore.restoring(folder).mkdir(parents=True)
        (folder / "both").write_text("old")
        (folder / "gone").mkdir()
        (folder / "gone/deep").write_text("old")
        (restore.restoring(folder) / "both").write_text("new")
        (restore.restoring(folder) / "come").mkdir()
    (data / "backup").mkdir()
    return data


def contents(data: Path) -> dict[str, str]:
    """Return all files below the volumes."""
    return {str(path.relative_to(data)): path.read_text() for path in sorted(data.rglob("*")) if path.is_file()}


def test_a_swap_puts_aside_what_was_there_and_back(volumes: Path) -> None:
    before = contents(volumes)
    aside = restore.swap()
    after = contents(volumes)
    assert after["both"] == after["media/both"] == after["private/both"] == "new"
    assert "gone/deep" not in after
    assert after[f"media/.backup/{aside}/gone/deep"] == "old"
    assert (volumes / "media/come").is_dir()
    assert (volumes / "backup").is_dir()
    restore.clear()
    restore.swap_back(aside)
    assert contents(volumes) == {name: text for name, text in before.items() if ".backup" not in name}


@pytest.mark.parametrize("number", range(13))
def test_a_swap_that_is_killed_at_any_rename_is_ended_by_the_next(
    volumes: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    left = [number]
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        try:
            restore.swap()
        except KeyboardInterrupt:
            begun = (volumes / ".backup/swap.json").exists()
        else:
            pytest.fail("there are more renames than this test tries")
    if begun:
        with pytest.raises(Failed, match=r"That is ended: what it restored is in place, .*/replaced-.* Nothing else"):
            restore.end_what_was_cut_off()
        assert contents(volumes)["media/both"] == contents(volumes)["both"] == "new"
        (kept,) = (volumes / "private/.backup").glob("replaced-*/both")
        assert kept.read_text() == "old"
    else:
        assert contents(volumes)["media/both"] == contents(volumes)["both"] == "old"
    assert not (volumes / ".backup/swap.json").exists()


def journal(volumes: Path) -> Path:
    """Return the list of renames that have begun."""
    return volumes / ".backup/swap.json"


def next_swap(monkeypatch: pytest.MonkeyPatch, volumes: Path, text: str, name: str) -> str:
    """Swap in a file with this text, at the next second."""
    for folder in (volumes, volumes / "media", volumes / "private"):
        shutil.rmtree(restore.restoring(folder), ignore_errors=True)
        restore.restoring(folder).mkdir()
        (restore.restoring(folder) / "both").write_text(text)
    monkeypatch.setattr(restore, "REPLACED_FORM", name)
    return restore.swap()


def test_a_second_restore_keeps_what_the_first_one_replaced(volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the only copy: a site that was wrongly restored is restored again, at once."""
    first = next_swap(monkeypatch, volumes, "wrong backup", "1")
    second = next_swap(monkeypatch, volumes, "right backup", "2")
    restore.clear()
    for folder in ("", "media/", "private/"):
        assert contents(volumes)[f"{folder}.backup/{first}/both"] == "old"
        assert contents(volumes)[f"{folder}.backup/{second}/both"] == "wrong backup"
    restore.swap_back(second)
    assert contents(volumes)["both"] == "wrong backup"
    assert contents(volumes)[f"media/.backup/{first}/both"] == "old"
    assert not (volumes / ".backup" / second).exists()


def test_what_was_replaced_is_removed_a_week_later(volumes: Path) -> None:
    aside = restore.swap()
    save.forget_what_was_replaced(time.time() + 6 * 86_400)
    assert f"media/.backup/{aside}/both" in contents(volumes)
    save.forget_what_was_replaced(time.time() + 8 * 86_400)
    assert not any(aside in name for name in contents(volumes))
    assert contents(volumes)["media/both"] == "new"


def test_a_swap_that_cannot_be_made_as_a_whole_is_no_success(volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is taken would stay as it was: half of the data old, and reported as restored."""
    before = contents(volumes)
    monkeypatch.setattr(restore, "REPLACED_FORM", "1")
    (volumes / "media/.backup/replaced-1/both").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        restore.swap()
    assert contents(volumes) == before
    assert not journal(volumes).exists()
    # Something writes to the volume between putting aside and putting in place.
    rename = Path.rename

    def written(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        if self == volumes / "private/gone":
            (volumes / "private/both").write_text("late")
        return moved

    monkeypatch.setattr(restore, "REPLACED_FORM", "2")
    monkeypatch.setattr(Path, "rename", written)
    for _ in range(2):
        with pytest.raises(Failed, match=r"private/both, which is there, though it was put aside"):
            restore.finish() if journal(volumes).exists() else restore.swap()
    assert journal(volumes).exists()
    (volumes / "private/both").unlink()
    restore.finish()
    assert contents(volumes)["private/both"] == "new"


def test_the_renames_are_on_the_disk_before_the_journal_goes(volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(restore, "sync", lambda place: synced.append(place) if journal(volumes).exists() else None)
    aside = restore.swap()
    work = [volumes / ".backup", volumes / "media/.backup", volumes / "private/.backup"]
    assert synced[0] == work[0]
    assert set(synced) >= {place for one in work for place in (one.parent, one / "restoring", one / aside)}


def test_a_disk_that_loses_its_cache_has_what_was_restored_before_the_swap(
    volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (volumes / "media/.backup/restoring/both").unlink()
    files = [(str(volumes / "media/both"), 3)]
    monkeypatch.setattr(repository, "read", lambda *_: json.dumps(vars(save.Manifest())))
    monkeypatch.setattr(repository, "files", lambda _: iter(files))
    monkeypatch.setattr(repository, "restore", lambda _, source, target, *__: (target / "both").write_text("abc"))
    done = []
    monkeypatch.setattr(os, "sync", lambda: done.append((volumes / "media/.backup/restoring/both").read_text()))
    restore.fetched("id")
    assert done == ["abc"]


def made_database(path: Path, rows: int = 500) -> Path:
    """Make a database in WAL mode with an index."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (a TEXT, b TEXT)")
        database.execute("CREATE INDEX i ON t (a)")
        database.executemany("INSERT INTO t VALUES (?, ?)", [(f"row {n}", "x" * 100) for n in range(rows)])
        database.commit()
    return path


def test_a_copy_has_what_is_only_in_the_wal_and_is_whole(tmp_path: Path) -> None:
    source = made_database(tmp_path / "db.sqlite3")
    with closing(sqlite3.connect(source)) as writer:
        writer.execute("INSERT INTO t VALUES ('late', '')")
        writer.commit()
        (tmp_path / "upload.txt").write_text("SQLite format 3, so they say")
        assert databases.find(tmp_path, set(), []) == [source]
        databases.copy(source, tmp_path / "copies/db.sqlite3")
        # An open transaction is no part of it.
        writer.execute("INSERT INTO t VALUES ('open', '')")
    copy = tmp_path / "copies/db.sqlite3"
    assert databases.problems(copy) == []
    assert databases.rows(copy) == {"t": 501}
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["db.sqlite3"]


def test_a_database_with_a_transaction_that_was_cut_off_is_copied(tmp_path: Path) -> None:
    """After a power failure; the copy is what it was before that transaction, as the site will see it."""
    source, crashed = tmp_path / "db.sqlite3", tmp_path / "crashed"
    with closing(sqlite3.connect(source)) as database:
        database.execute("CREATE TABLE t (a TEXT)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 900,)] * 500)
        database.commit()
        # Written before the commit
        database.execute("PRAGMA cache_size=2")
        database.execute("UPDATE t SET a = 'half'")
        crashed.mkdir()
        for file in tmp_path.glob("db.sqlite3*"):
            shutil.copy(file, crashed)
    assert (crashed / "db.sqlite3-journal").stat().st_size > 0
    databases.copy(crashed / "db.sqlite3", tmp_path / "copy")
    with closing(sqlite3.connect(tmp_path / "copy")) as database:
        assert database.execute("SELECT count(*) FROM t WHERE a = 'half'").fetchone() == (0,)
    assert databases.problems(tmp_path / "copy") == []


def test_a_torn_page_and_an_index_that_lacks_a_row_are_found(tmp_path: Path) -> None:
    torn = made_database(tmp_path / "torn.sqlite3")
    with torn.open("r+b") as file:
        file.seek(4096 * 4)
        file.write(b"torn" * 1000)
    assert databases.problems(torn) != []
    # What the bug of SECURITY.md leaves
    lacking = made_database(tmp_path / "lacking.sqlite3")
    with closing(sqlite3.connect(lacking)) as database:
        database.execute("PRAGMA writable_schema=ON")
        database.execute("UPDATE sqlite_master SET sql = 'CREATE INDEX i ON t (b)' WHERE name = 'i'")
        database.commit()
    assert "index i" in "".join(databases.problems(lacking))


def test_functions_and_constraints_of_the_project_do_not_make_a_copy_suspect(tmp_path: Path) -> None:
    path = made_database(tmp_path / "db.sqlite3")
    with closing(sqlite3.connect(path)) as database:
        database.create_function("of_django", 1, lambda text: True, deterministic=True)
        database.execute("CREATE TABLE c (a TEXT CHECK (of_django(a)))")
        database.execute("INSERT INTO c VALUES ('x')")
        database.execute("CREATE TABLE d (a INTEGER CHECK (a > 0))")
        # A row from before the constraint is not a damaged one.
        database.execute("PRAGMA ignore_check_constraints=ON")
        database.execute("INSERT INTO d VALUES (-1)")
        database.commit()
        # A copy has no -wal file.
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert databases.problems(path) == []
        database.execute("CREATE INDEX by_it ON c (of_django(a))")
        database.commit()
    assert databases.problems(path) == []
    assert databases.rows(path) == {"t": 500, "c": 1, "d": 1}


def test_what_was_restored_is_compared_before_the_swap(volumes: Path) -> None:
    copy = made_database(restore.restoring(volumes) / "db.sqlite3")
    wanted = [(f"{volumes}/media/both", 3), ("/staging/snapshot/manifest.json", 9)]
    manifest = save.Manifest(databases={"db.sqlite3": {"rows": {"t": 500}}})
    restore.compare(manifest, wanted)
    with pytest.raises(Failed, match=r"not what was backed up: .*/media/both\. Nothing was changed"):
        restore.compare(manifest, [(f"{volumes}/media/both", 4)])
    with pytest.raises(Failed, match=r"/private/lost\.txt"):
        restore.compare(manifest, [*wanted, (f"{volumes}/private/lost.txt", 0)])
    with closing(sqlite3.connect(copy)) as database:
        database.execute("DELETE FROM t WHERE a = 'row 7'")
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with pytest.raises(Failed, match=r"the rows of db\.sqlite3"):
        restore.compare(manifest, wanted)


def test_a_file_that_is_not_in_the_snapshot_is_missed_unless_it_is_gone(
    volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = save.Manifest(files={str(path): found.st_size for path, found in save.listed([])})
    assert len(manifest.files) == 6
    assert not any(".backup" in path for path in manifest.files)
    monkeypatch.setattr(repository, "files", lambda _: iter(manifest.files.items()))
    assert save.missing(manifest, "id") == []
    # The site has deleted one while it was read; another could not be read.
    there = {path: size for path, size in manifest.files.items() if not path.endswith("both")}
    monkeypatch.setattr(repository, "files", lambda _: iter(there.items()))
    (volumes / "both").unlink()
    (volumes / "private/both").unlink()
    (said,) = save.missing(manifest, "id")
    assert said.startswith(f"1 files are not whole in the backup: {volumes}/media/both.")


def test_a_million_files_are_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The container has 512 MB, and restic needs most of them."""
    count = 20_000
    line = json.dumps({"type": "file", "path": "/data/media/" + "x" * 60, "size": 7, "other": "y" * 200})
    script = f"for _ in range({count}): print({line!r})"
    monkeypatch.setattr(repository, "command", lambda *_: [sys.executable, "-c", script])
    tracemalloc.start()
    try:
        assert sum(size for _, size in repository.files("id")) == 7 * count
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    script = "import sys; print('{}'); sys.exit('Load(<data/b1>) failed: file is too short')"
    with pytest.raises(Failed, match=r"This backup cannot be read: .* file is too short"):
        list(repository.files("id"))


MIGRATED = {"django_migrations": 20, "auth_permission": 40, "django_content_type": 10, "django_session": 500}


def filled(volumes: Path, rows: dict[str, int], files: int) -> save.Manifest:
    """Return what is written down of a site with so many rows, besides Django's own, and so many uploads."""
    return save.Manifest(
        databases={"db.sqlite3": {"rows": {**MIGRATED, **rows}, "migrations": []}},
        files={f"{volumes}/media/{number}": 1 for number in range(files)} | {f"{volumes}/notes": 1},
    )


@pytest.mark.parametrize(
    ("rows", "files", "said"),
    [
        ({"auth_user": 2, "shop_order": 98}, 40, []),
        # A queue that has been emptied, a purge of less than half
        ({"shop_order": 60}, 30, []),
        # As `migrate` makes it after the volume was lost
        ({}, 40, ["db.sqlite3 had 100 rows in the last good backup and has 0 now"]),
        ({"auth_user": 1, "shop_order": 48}, 40, ["db.sqlite3 had 100 rows in the last good backup and has 49 now"]),
        ({"shop_order": 100}, 0, ["/media had 40 files in the last good backup and has 0 now"]),
        ({"shop_order": 100}, 19, ["/media had 40 files in the last good backup and has 19 now"]),
    ],
)
def test_a_site_that_has_lost_half_of_its_data_is_noticed(
    volumes: Path, rows: dict[str, int], files: int, said: list[str]
) -> None:
    """Otherwise the backups of the nights after a mishap would be good, and push out the last one that has all."""
    full = filled(volumes, {"auth_user": 2, "shop_order": 98}, 40)
    before = {"rows": full.rows(), "files": full.files_of_volumes()}
    found = save.lost(before, filled(volumes, rows, files))
    assert len(found) == len(said)
    assert all(text in problem for text, problem in zip(said, found, strict=True))
    assert save.lost({}, save.Manifest()) == []


def test_a_disk_without_room_is_refused_before_anything_is_written(
    volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 9 * 10**8, 10**8))
    restore.room(volumes, 10**7)
    with pytest.raises(Failed, match=r"has 100 MB free.* takes up to 90 MB, and 50 MB are kept free.* Nothing was ch"):
        restore.room(volumes, 9 * 10**7)


@pytest.fixture
def machine(volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rest of the container: settings, and a repository that takes everything. Returns what restic is told."""
    for module in (save, nightly):
        monkeypatch.setattr(module, "SETTINGS", tmp_path / "staging/settings")
    for name, place in {
        "STAGING": "staging",
        "SNAPSHOT": "staging/snapshot",
        "COPIES": "staging/snapshot/databases",
        "BACKUPS": "backups",
        "LAST": "backups/last.json",
    }.items():
        monkeypatch.setattr(save, name, tmp_path / place)
    (tmp_path / "staging/settings").mkdir(parents=True)
    (tmp_path / "staging/settings/about.json").write_text("{}")
    (tmp_path / "backups").mkdir()
    made_database(volumes / "db.sqlite3", rows=500)
    told: list[str] = []

    def restic(*words: str, **_: object) -> str:
        told.append(" ".join(words))
        return '{"snapshot_id": "aaaaaaaaaa"}' if words[0] == "backup" else "[]"

    def stored(_: str) -> Iterator[tuple[str, int]]:
        for place in (volumes, tmp_path / "staging/snapshot"):
            yield from ((str(path), path.stat().st_size) for path in place.rglob("*") if path.is_file())

    monkeypatch.setattr(repository, "restic", restic)
    monkeypatch.setattr(repository, "files", stored)
    monkeypatch.setattr(repository, "ensure", lambda: None)
    return told


def words_of(told: list[str], command: str) -> list[str]:
    """Return what restic was told with one of its commands, and forget all."""
    found = [words for words in told if words.startswith(command)]
    told.clear()
    return found


def test_suspect_backups_do_not_fill_the_disk(machine: list[str], volumes: Path) -> None:
    """Only the newest are kept, and their space is freed, though no run is good."""
    assert save.run()
    assert words_of(machine, "forget --tag good")
    with closing(sqlite3.connect(volumes / "db.sqlite3")) as database:
        database.execute("DELETE FROM t")
        database.commit()
    save.write_down({**save.last(), "pruned": 0})
    assert not save.run()
    assert save.last()["result"] == "suspect"
    assert "prune" in machine
    assert words_of(machine, "forget") == ["forget --tag suspect --group-by host --keep-last 3"]


def test_a_run_that_would_fill_the_disk_does_not_begin(
    machine: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied: list[Path] = []
    monkeypatch.setattr(databases, "copy", lambda source, _: copied.append(source))
    # 40 MB free; the database alone takes less than that, but 50 MB are kept free.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 96 * 10**7, 4 * 10**7))
    assert not save.run()
    assert "40 MB free. A copy of the databases takes up to" in capsys.readouterr().out
    assert copied == []
    assert words_of(machine, "backup") == []
    assert save.last()["result"] == "failed"


def test_uploads_that_are_new_must_have_room_in_the_repository(
    machine: list[str], volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (volumes / "media/large").open("w") as file:
        file.truncate(200_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 8 * 10**8, 2 * 10**8))
    assert not save.run()
    assert "What is new in this backup takes up to 200 MB" in save.last()["said"]
    # It is in an older one.
    os.utime(volumes / "media/large", (1, 1))
    monkeypatch.setattr(repository, "time_of_last_good", lambda: 2.0)
    assert save.run()


def test_what_a_failed_run_has_written_is_freed(machine: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise Failed("The disk is full")

    monkeypatch.setattr(repository, "save", full)
    assert not save.run()
    assert words_of(machine, "prune") == ["prune --max-repack-size 0"]


def test_a_run_that_is_killed_is_written_down(machine: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The container starts again at once. It must not be killed every minute at its memory limit."""

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(repository, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save.run()
    known = save.last()
    assert known["result"] == "unfinished"
    assert not nightly.due(known["tried"], known["result"], "03:17", known["tried"] + 60)
    assert nightly.due(known["tried"], known["result"], "03:17", known["tried"] + 3_700)
    assert machine


def test_after_a_failure_on_a_full_disk_an_hour_passes(machine: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Though that it failed could not be written down."""
    runs: list[float] = []

    def fails() -> bool:
        runs.append(time.time())
        return False

    monkeypatch.setattr(save, "run", fails)
    failed = nightly.look("03:17", 0)
    assert failed == nightly.look("03:17", failed)
    assert len(runs) == 1
    assert nightly.look("03:17", failed - 3_700) >= failed
    assert len(runs) == 2
    # Written down while the clock was wrong
    save.write_down({"tried": time.time() + 86_400, "result": "good"})
    nightly.look("03:17", 0)
    assert len(runs) == 3
    assert machine == []


def test_a_folder_that_cannot_be_read_makes_a_suspect_backup(
    machine: list[str], volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refused(place: Any) -> Any:
        if str(place) == str(volumes / "media/gone"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refused)
    assert not save.run()
    assert (save.last()["result"], len(machine) > 0) == ("suspect", True)
    assert save.last()["said"].startswith(f"The folder {volumes}/media/gone cannot be read: Permission denied")


@pytest.mark.parametrize(
    ("verb", "code", "errors", "said"),
    [
        ("backup", 12, "Fatal: wrong password or no key found", "does not open backups/"),
        ("snapshots", 10, "Fatal: repository does not exist", "There is no backup in backups/"),
        (
            "backup",
            1,
            "Save(<data/1>) failed: write: no space left on device",
            "No older backup is forgotten. Make room",
        ),
        ("restore", 1, "write /data/x: no space left on device", "The disk is full. Nothing was changed"),
        ("restore", 1, "Load(<data/b1>, 17, 0) failed: file is too short", "file is too short. Nothing was changed"),
        (
            "check",
            1,
            "pack b1: unexpected file size\nFatal: contains errors",
            "damaged: pack b1: unexpected file size.",
        ),
        ("backup", 1, "open /backups/repository/x: permission denied", "sudo chown -R 10001:10001 backups"),
        ("ls", -9, "", "was killed, most likely at the memory limit"),
    ],
)
def test_each_way_in_which_restic_fails_has_a_sentence(verb: str, code: int, errors: str, said: str) -> None:
    assert said in repository.sentence(verb, code, errors)


NIGHT = 1795575600.0  # 2026-11-25 03:00 UTC


@pytest.mark.parametrize(
    ("tried", "result", "now", "due"),
    [
        (0, "", NIGHT, True),
        # Yesterday's, before and after 03:17
        (NIGHT - 85_000, "good", NIGHT, False),
        (NIGHT - 85_000, "good", NIGHT + 1_100, True),
        # Made by hand in the evening
        (NIGHT - 20_000, "good", NIGHT + 1_100, True),
        (NIGHT + 1_050, "good", NIGHT + 40_000, False),
        # After a failure, an hour later; after a suspect one, the next night
        (NIGHT, "failed", NIGHT + 1_800, False),
        (NIGHT, "failed", NIGHT + 3_700, True),
        (NIGHT + 1_050, "suspect", NIGHT + 10_000, False),
        (NIGHT + 1_050, "suspect", NIGHT + 1_100 + 86_400, True),
        # The machine was off for two nights.
        (NIGHT - 200_000, "good", NIGHT - 20_000, True),
    ],
)
def test_a_backup_is_due_once_a_day_and_after_a_night_that_was_missed(
    tried: float, result: str, now: float, due: bool
) -> None:
    assert nightly.due(tried, result, "03:17", now) is due


@pytest.mark.parametrize(
    ("known", "nightly_runs", "found"),
    [
        ({}, False, "could there is no backup"),
        # Every night has failed before it could write a word.
        ({}, True, "unsafe there is no backup"),
        ({"result": "good", "good": -3600.0}, True, "unsafe the last good backup is of "),
        ({"result": "unfinished", "good": 60.0}, True, ""),
        ({"result": "unfinished", "good": 60.0, "tried": 3 * 3600.0}, True, "is unfinished"),
        ({"result": "good", "good": 60.0}, True, ""),
        ({"result": "good", "good": 30 * 3600.0}, True, "unsafe the last good backup is more than 26 hours old"),
        ({"result": "good", "good": 30 * 3600.0}, False, "could the last good backup is more than 26 hours old"),
        ({"result": "failed", "good": 60.0, "said": "The disk is full"}, True, "unsafe the last backup, of"),
        ({"result": "suspect", "good": 60.0, "said": "damaged"}, False, "is suspect: damaged"),
    ],
)
def test_doctor_finds_old_failed_and_suspect_backups(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, Any], nightly_runs: bool, found: str
) -> None:
    if known:
        # Ages, in seconds
        times = {"tried": time.time() - known.get("tried", 60), "good": time.time() - known["good"]}
        known = {"said": "", **known, **times}
    monkeypatch.setattr(ops_backup, "last", lambda: known)
    monkeypatch.setattr(ops_backup, "same_disk", lambda: False)
    files = ["compose.yaml", *(["overrides/backup.yaml"] if nightly_runs else [])]
    said = [f"{word} {text}" for word, text in ops_backup.findings(files)]
    assert len(said) == bool(found)
    assert found in "".join(said)
    monkeypatch.setattr(ops_backup, "same_disk", lambda: True)
    if known:
        assert (
            "could backups/ is on the disk of the data" in [f"{w} {t}" for w, t in ops_backup.findings(files)][-1][:60]
        )


def test_a_password_is_not_made_over_backups_that_need_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_backup, "FOLDER", tmp_path / "backups")
    monkeypatch.setattr(ops_backup, "PASSWORD", tmp_path / "secrets/backup_password")
    (tmp_path / "backups/repository").mkdir(parents=True)
    with pytest.raises(Stop, match=r"no secrets/backup_password, which alone opens them"):
        ops_backup.ensure()
    assert not (tmp_path / "secrets").exists()


class Docker:
    """What a verb asks of Docker, and what it has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *containers: ops_stack.Container) -> None:
        self.told: list[str] = []
        self.containers = containers
        monkeypatch.setattr(ops_stack, "docker", self.docker)
        monkeypatch.setattr(ops_stack, "all_containers", lambda: list(self.containers))
        monkeypatch.setattr(ops_stack, "inspect", lambda _: list(self.containers))

    def docker(self, *words: str, seconds: float = 60) -> str:
        """Write down a command."""
        assert seconds > 0
        self.told.append(" ".join(words))
        return ""


def container(service: str, health: str = "healthy") -> ops_stack.Container:
    """Return a container that runs."""
    return ops_stack.Container(
        id=f"id-of-{service}",
        name=f"site-{service}-1",
        service=service,
        running=True,
        health=health,
        started="",
        exit_code=0,
        restarts=0,
        out_of_memory=False,
        image="",
        files=(),
        one_off=False,
        volumes={"/data": "site_data"},
    )


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for backups and their password, on this side."""
    monkeypatch.setattr(ops_backup, "ROOT", tmp_path)
    monkeypatch.setattr(ops_backup, "FOLDER", tmp_path / "backups")
    monkeypatch.setattr(ops_backup, "PASSWORD", tmp_path / "secrets/backup_password")
    monkeypatch.setattr(base_image, "name", lambda: "debian")
    monkeypatch.setattr(base_image, "ensure", lambda _: None)
    return tmp_path


def test_every_user_of_the_machine_may_list_the_backups_whatever_the_umask(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = Docker(monkeypatch)
    before = os.umask(0o027)
    try:
        ops_backup.ensure()
    finally:
        os.umask(before)
    assert (mine / "backups").stat().st_mode & 0o777 == 0o755
    assert (mine / "secrets").stat().st_mode & 0o777 == 0o700
    # A folder that was made so by an earlier version, or copied
    monkeypatch.setattr(os, "access", lambda *_: False)
    docker.told.clear()
    ops_backup.has_backups()
    assert "chmod 755 /backups" in docker.told[0]


def test_a_nightly_backup_goes_into_the_new_folder_when_there_is_one(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mv backups backups.old && make backup`: the container that runs has mounted the old one."""
    docker = Docker(monkeypatch, container("backup"), container("uwsgi"))
    ops_backup.ensure()
    assert docker.told[-1] == "restart id-of-backup"
    (mine / "backups").rename(mine / "backups.old")
    docker.told.clear()
    ops_backup.ensure()
    assert docker.told[-1] == "restart id-of-backup"
    docker.told.clear()
    ops_backup.ensure()
    assert "restart" not in "".join(docker.told)


def test_a_change_that_serves_does_not_fail_because_of_the_backup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failed(_: object) -> None:
        raise Stop("no space left on device")

    monkeypatch.setattr(ops_backup, "hand_over", failed)
    ops_backup.started(["compose.yaml", "overrides/backup.yaml"])
    assert "no space left on device\nHand it these: make backup" in capsys.readouterr().out


def archive(*names: str) -> bytes:
    """Return a tar archive with these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as opened:
        for name in names:
            ops_backup.add(opened, name, b"A=1\n")
    return made.getvalue()


@pytest.mark.parametrize("names", [("../outside",), ("/tmp/outside",), (".env", "a/../../outside")])
def test_settings_are_kept_as_a_whole_and_inside_of_their_folder(
    machine: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """With the Python of Debian 12 as well, whose tarfile has no filter."""
    staging = tmp_path / "staging"
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.setattr(backup_main, "SETTINGS", staging / "settings")
    assert machine == []

    def given(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        backup_main.settings()

    given(archive(".env", "secrets/key", "about.json"))
    before = contents(staging)
    assert before["settings/secrets/key"] == "A=1\n"
    assert (staging / "settings/secrets/key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Failed, match="is no file of a checkout"):
        given(archive(*names))
    assert {name: text for name, text in contents(staging).items() if "settings.new" not in name} == before
    assert not (staging / "outside").exists()


def test_a_problem_of_the_disk_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise OSError(5, "Input/output error", "/data/x")

    monkeypatch.setitem(backup_main.COMMANDS, "restore", broken)
    monkeypatch.setattr(sys, "argv", ["backup", "restore"])
    assert backup_main.main() == 1
    assert "restore failed: [Errno 5] Input/output error: '/data/x'" in capsys.readouterr().err


# The other end of `make restore`: says how far it is, and is killed after a word.
OTHER_END = """
import json, sys
def say(word):
    print(word, json.dumps({"id": "a", "time": "2026-11-25T03:17", "tag": "good", "summary": "", "migrations": []}),
          flush=True)
    if word == sys.argv[1]:
        sys.exit("the kernel has killed me")
say("READY")
if sys.stdin.readline().strip() != "swap":
    sys.exit("Nothing was changed")
if sys.argv[1] == "swap":
    sys.exit("the kernel has killed me")
say("SWAPPED")
if sys.stdin.readline().strip() == "back":
    say("BACK")
"""


class Exchange:
    """A restore whose other end is a program, and what it does to the workers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, killed_after: str = "") -> None:
        self.done: list[str] = []
        self.monkeypatch = monkeypatch
        command = [sys.executable, "-c", OTHER_END, killed_after]
        monkeypatch.setattr(ops_backup, "command", lambda *_, **__: command)
        monkeypatch.setattr(ops_restore, "migrations", lambda _: [])
        for name in ("refuse_another_engine", "refuse_other_commands"):
            monkeypatch.setattr(ops_restore, name, lambda *_: None)
        monkeypatch.setattr(ops_stack, "all_containers", list)
        monkeypatch.setattr(ops_restore, "halt", lambda _: self.done.append("halt"))
        monkeypatch.setattr(ops_restore, "start", lambda _: self.done.append("start"))

    def first(self, name: str, wrong: Callable[[], object]) -> None:
        """Have something happen at the first call of a step."""
        left, step = [wrong], getattr(ops_restore, name)

        def does(*words: Any) -> None:
            step(*words)
            if left:
                left.pop()()

        self.monkeypatch.setattr(ops_restore, name, does)

    def run(self) -> None:
        """Restore."""
        ops_restore.exchanged(["compose.yaml"], "latest", [container("uwsgi")])


def unhealthy() -> None:
    """Fail as a site that does not start."""
    raise Stop("It does not become healthy")


def test_a_restore_stops_and_starts_the_workers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    restoring = Exchange(monkeypatch)
    restoring.run()
    assert restoring.done == ["halt", "start"]


def test_what_does_not_start_is_put_back_and_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    restoring = Exchange(monkeypatch)
    restoring.first("start", unhealthy)
    with pytest.raises(Stop, match="does not become healthy") as stopped:
        restoring.run()
    assert not isinstance(stopped.value, ops_restore.HalfWay)
    assert restoring.done == ["halt", "start", "halt", "start"]
    assert "Not restored: what was there before is back" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["swap", "SWAPPED"])
def test_the_workers_start_though_the_other_end_is_killed(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """And it says what to type: whether the swap was made cannot be known here."""
    restoring = Exchange(monkeypatch, killed_after=word)
    if word == "SWAPPED":
        restoring.first("start", unhealthy)
    with pytest.raises(ops_restore.HalfWay, match=r"(?s)was not put back: .*Next: make restore FROM=latest, .*make up"):
        restoring.run()
    assert restoring.done[-1] == "start"
    assert restoring.done.count("start") == (2 if word == "SWAPPED" else 1)


def test_nothing_is_changed_if_the_other_end_is_killed_before_the_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    restoring = Exchange(monkeypatch, killed_after="READY")
    # Until then it has ended, and is still to be waited for.
    restoring.first("halt", lambda: os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT))
    with pytest.raises(Stop, match="the kernel has killed me") as stopped:
        restoring.run()
    assert not isinstance(stopped.value, ops_restore.HalfWay)
    assert restoring.done == ["halt", "start"]


def test_the_workers_start_though_they_cannot_be_stopped_again(monkeypatch: pytest.MonkeyPatch) -> None:
    restoring = Exchange(monkeypatch)
    restoring.first("start", unhealthy)
    halt = ops_restore.halt

    def late(holding: Any) -> None:
        halt(holding)
        if restoring.done.count("halt") == 2:
            raise Stop("docker stop took longer than 100 s")

    monkeypatch.setattr(ops_restore, "halt", late)
    with pytest.raises(ops_restore.HalfWay, match=r"(?s)healthy.*docker stop took longer .*Next: make restore"):
        restoring.run()
    assert restoring.done == ["halt", "start", "halt", "start"]


@pytest.mark.parametrize("step", ["halt", "start"])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_connection_that_drops_does_not_leave_the_workers_stopped(
    monkeypatch: pytest.MonkeyPatch, step: str, number: signal.Signals
) -> None:
    restoring = Exchange(monkeypatch)
    before, does = signal.getsignal(number), getattr(ops_restore, step)

    def hung_up(holding: Any) -> None:
        # On the way back as well, where it must not matter
        does(holding)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(ops_restore, step, hung_up)
    with pytest.raises(Stop, match=f"make restore was ended by {number.name}") as stopped:
        restoring.run()
    assert not isinstance(stopped.value, ops_restore.HalfWay)
    assert restoring.done == (["halt", "start"] if step == "halt" else ["halt", "start", "halt", "start"])
    assert signal.getsignal(number) == before


def test_a_command_that_began_while_the_backup_was_fetched_is_not_swapped_under(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has the old database open."""
    restoring = Exchange(monkeypatch)
    restoring.first("refuse_other_commands", unhealthy)
    with pytest.raises(Stop, match="does not become"):
        restoring.run()
    assert restoring.done == ["halt", "start"]


def test_a_command_is_one_that_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    Docker(monkeypatch, container("uwsgi"), replace(container("backup"), one_off=True))
    ops_restore.refuse_other_commands()
    Docker(monkeypatch, replace(container("release"), one_off=True))
    with pytest.raises(Stop, match="A command is under way in site-release-1"):
        ops_restore.refuse_other_commands()


def test_a_service_without_a_health_check_is_started_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that a fork has added, with /data."""
    monkeypatch.setattr(ops_stack, "HEALTHY_SECONDS", 0.3)
    monkeypatch.setattr(ops_stack, "late", lambda: 0)
    monkeypatch.setattr(ops_stack, "end_of_log", lambda one: one.name)
    docker = Docker(monkeypatch, container("uwsgi"), container("queue", health="none"))
    ops_restore.start(docker.containers)
    assert docker.told == ["start id-of-uwsgi id-of-queue"]
    docker.containers = (replace(container("queue", health="none"), running=False),)
    with pytest.raises(Stop, match="site-queue-1\nIt does not become healthy"):
        ops_restore.start(docker.containers)


@pytest.mark.parametrize(
    ("ends", "stays"), [(Stop("refused"), False), (KeyboardInterrupt(), False), (ops_restore.HalfWay("half"), True)]
)
def test_settings_of_a_backup_that_is_not_restored_are_taken_away_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: BaseException, stays: bool
) -> None:
    monkeypatch.setattr(ops_restore, "ROOT", tmp_path)
    monkeypatch.setattr(ops_restore, "read_settings", lambda _: archive(".env", "secrets/key", "about.json"))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/key").write_text("mine")
    with pytest.raises(type(ends)), ops_restore.laid_settings("latest") as laid:
        assert laid == [tmp_path / ".env"]
        raise ends
    assert (tmp_path / ".env").exists() is stays
    assert (tmp_path / "secrets/key").read_text() == "mine"


def test_a_file_of_a_backup_is_never_laid_outside_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops_restore, "ROOT", tmp_path)
    with pytest.raises(Stop, match="outside of the checkout"):
        ops_restore.lay(tmp_path / "../elsewhere", b"x")
    assert ops_restore.lay(tmp_path / "secrets/key", b"x")
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert not ops_restore.lay(tmp_path / "secrets/key", b"y")
    assert (tmp_path / "secrets/key").read_bytes() == b"x"


def test_backups_are_ignored_by_git_and_by_the_builds() -> None:
    assert run("git", "check-ignore", "backups/last.json", "secrets/backup_password").returncode == 0
    # No build's context is the folder that they are in, or one above it.
    for file in (ROOT / "compose.yaml", ROOT / "overrides/backup.yaml"):
        services = yaml.safe_load(file.read_text())["services"].values()
        builds = [service["build"] for service in services if "build" in service]
        contexts = [place for one in builds for place in (one["context"], *one.get("additional_contexts", {}).values())]
        assert contexts
        assert not {place.rstrip("/") for place in contexts} & {".", "..", "backups", "secrets"}, file
