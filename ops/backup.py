"""`make backup`, `make backups`: the owner's side of backup/, which is the program in the container.

The container reads the volumes. The settings, which belong to the owner of this checkout, are handed to it.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ops import base_image, change, settings, stack, state
from ops.console import ROOT, Stop, quiet
from ops.needs import COULD, UNSAFE

OVERRIDE = "overrides/backup.yaml"
FOLDER = ROOT / "backups"
LAST = FOLDER / "last.json"
PASSWORD = ROOT / "secrets/backup_password"
PASSWORD_BYTES = 32
# The container's user, whose files they are, and no others of this machine
USER = 10001
# A container without Compose, which reads settings that there may not be yet
BARE = ("--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")
# To give backups/ to the container's user, wherever it came from
OWNER = ("--cap-add", "CHOWN", "--cap-add", "FOWNER", "--cap-add", "DAC_READ_SEARCH")
# All of this machine's users may list it, for `make status`: the repository in it is restic's own, 0700.
FOLDER_MODE = 0o755
# What one may take; and a day, and as much as that again
RUN_SECONDS = 2 * 3600
OLD_SECONDS = 24 * 3600 + RUN_SECONDS
# As backup/save.py writes it down while a run lasts: it stays if that is killed
UNFINISHED = "unfinished"
# In the archive of the settings, what is no file of the checkout
ABOUT = "about.json"
KILLED_CODE = 137
KILLED = f"It was killed, most likely at its memory limit: mem_limit in {OVERRIDE}. No older backup is forgotten."


def backup() -> None:
    """Make a backup now. Raises Stop if it is not good."""
    change.refuse_another_checkout(stack.all_containers())
    files = files_with_backup()
    refuse_nothing_to_save()
    ensure()
    stack.build(files, "backup")
    hand_over(files)
    if (kind := engine_of(database_url(files))) != "sqlite":
        print(f"The database is not in it: DATABASE_URL names {kind}, which has a tool of its own, such as pg_dump")
    # Not captured: it can take minutes, and prints as it goes.
    if code := subprocess.run(command(files, "now"), cwd=ROOT, check=False).returncode:
        raise Stop(KILLED if code == KILLED_CODE else "This is no good backup (above).")
    print(f"It is in {FOLDER.relative_to(ROOT)}/. To restore it: make restore FROM=latest")


def show() -> None:
    """List the backups. Raises Stop if there are none."""
    refuse_no_backups()
    files = files_with_backup()
    ensure()
    stack.build(files, "backup")
    print(output(files, "list"), end="")


def files_with_backup() -> list[str]:
    """Return the stack's files with the service `backup`. Raises Stop under `make dev`, whose data is in dev-data/."""
    files = state.current_files()
    if stack.includes(files, stack.DEVELOPMENT):
        raise Stop("This is the stack of `make dev`, whose data is the folder dev-data/. For production: make up")
    return stack.with_override(files, OVERRIDE)


def refuse_nothing_to_save() -> None:
    """Raise Stop if this stack has no data."""
    if quiet(["docker", "volume", "inspect", f"{stack.settings().project}_data"]) is None:
        raise Stop("There is nothing to back up: this stack has no data yet. Start it: make up")


def refuse_no_backups() -> None:
    """Raise Stop if there is no repository next to this file's checkout."""
    if not has_backups():
        raise Stop("There are no backups in backups/. Make one: make backup; or put the folder of the site there")


def has_backups() -> bool:
    """Return whether there is something in backups/."""
    return FOLDER.is_dir() and bool(entries())


def entries() -> list[Path]:
    """Return what is in backups/, which is there."""
    if not os.access(FOLDER, os.R_OK | os.X_OK):
        # Made under a umask that keeps others out, or copied
        own()
    return list(FOLDER.iterdir())


def ensure() -> None:
    """Make the password and backups/ where they are missing, and give backups/ to the container's user.

    Raises Stop if there are backups and no password: a new one would not open them.
    """
    new = not PASSWORD.exists() or not FOLDER.is_dir()
    if not PASSWORD.exists():
        if has_backups():
            raise Stop(
                "There are backups in backups/, and no secrets/backup_password, which alone opens them. Put it back; "
                "or begin new ones: mv backups backups.old && make backup"
            )
        settings.make_secret(PASSWORD, PASSWORD_BYTES)
        name = PASSWORD.relative_to(ROOT)
        print(f"Made {name}. Without it no one can read backups/: keep a copy on another machine")
    if not FOLDER.is_dir():
        FOLDER.mkdir()
        # Whatever the umask is
        FOLDER.chmod(FOLDER_MODE)
    if any(path.stat().st_uid != USER for path in (*entries(), FOLDER)):
        own()
    if new and (nightly := [one.id for one in stack.containers("backup") if one.running]):
        # It has mounted the old ones, and would go on with them.
        stack.docker("restart", *nightly)


def own() -> None:
    """Give backups/ to the container's user, and let every user of this machine list it."""
    image = base_image.name()
    base_image.ensure(image)
    script = f"chown --recursive {USER}:{USER} /backups && chmod {FOLDER_MODE:o} /backups"
    stack.docker("run", *BARE, *OWNER, "--user", "0", "--volume", f"{FOLDER}:/backups", image, "sh", "-euc", script)


def command(files: Sequence[str], *words: str, options: Sequence[str] = ()) -> list[str]:
    """Return the command that runs one container of the service."""
    return stack.compose_command(
        files, "--progress", "quiet", "run", "--rm", "--no-deps", "-T", *options, "backup", *words
    )


def output(files: Sequence[str], *words: str, data: bytes = b"") -> str:
    """Return what one container of the service prints. Raises Stop with its message if it fails."""
    done = subprocess.run(command(files, *words), input=data, capture_output=True, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise Stop(KILLED if done.returncode == KILLED_CODE else done.stderr.decode(errors="replace").strip())
    return done.stdout.decode(errors="replace")


def prepare() -> None:
    """Before a start with the service in COMPOSE_FILE: make what it mounts."""
    if stack.includes(stack.settings().files.split(":"), OVERRIDE):
        ensure()


def started(files: Sequence[str]) -> None:
    """After a change with the service in COMPOSE_FILE: hand it the settings that serve now.

    The change is made and serves, whatever becomes of this.
    """
    if stack.includes(files, OVERRIDE):
        try:
            hand_over(files)
        except (Stop, OSError, subprocess.SubprocessError) as failed:
            print(f"Warning: the nightly backup has the settings of before: {failed}\nHand it these: make backup")


def hand_over(files: Sequence[str]) -> None:
    """Give the container the settings of this checkout: it cannot read them itself, being no user of this machine."""
    output(files, "settings", data=packed(files))


def packed(files: Sequence[str]) -> bytes:
    """Return .env, project.env and secrets/ as a tar archive, with what serves now. Only what can be laid back."""
    about = {
        "release": state.current().release,
        "engine": engine_of(database_url(files)),
        "project": stack.settings().project,
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as made:
        add(made, ABOUT, json.dumps(about).encode())
        for file in mine():
            add(made, str(file.relative_to(ROOT)), file.read_bytes())
    return archive.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file that only its owner may read."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(content))


def mine() -> list[Path]:
    """Return the settings and secrets of this checkout; the password that opens a backup is not in it."""
    env = Path(os.path.normpath(ROOT / stack.settings().project_env))
    found = [ROOT / ".env", *([env] if env.is_relative_to(ROOT) else []), *sorted((ROOT / "secrets").rglob("*"))]
    return [file for file in found if file.is_file() and file != PASSWORD]


def database_url(files: Sequence[str]) -> str:
    """Return where the project is told to have its database."""
    return str(stack.config(files)["services"]["uwsgi"]["environment"].get("DATABASE_URL", ""))


def engine_of(url: str) -> str:
    """Return what kind of database an address is of."""
    return re.split(r"[+:]", url)[0] or "sqlite"


def last() -> dict[str, Any]:
    """Return how the last backup went: nothing if there was none."""
    try:
        return dict(json.loads(LAST.read_text()))
    except (OSError, ValueError):
        return {}


def findings(files: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the backups, for `make doctor`: a word (unsafe, could), a sentence."""
    known, nightly, now = last(), stack.includes(files, OVERRIDE), time.time()
    word = UNSAFE if nightly else COULD
    fix = "See why: make logs S=backup" if nightly else f"Make one: make backup; one every night: {OVERRIDE}"
    if not known:
        yield word, f"there is no backup. {fix} (docs/backup.md)"
        return
    tried, good = known["tried"], known.get("good", 0)
    under_way = known["result"] == UNFINISHED and 0 <= now - tried < RUN_SECONDS
    if known["result"] != "good" and not under_way:
        yield UNSAFE, f"the last backup, of {moment(tried)}, is {known['result']}: {known['said']}"
    if good > now:
        yield word, f"the last good backup is of {moment(good)}, later than now: a clock was wrong. {fix}"
    elif now - good > OLD_SECONDS:
        was = moment(good) if good else "never made"
        yield word, f"the last good backup is more than 26 hours old ({was}). {fix}"
    if same_disk():
        yield COULD, "backups/ is on the disk of the data, and goes with it. Copy it to another machine: docs/backup.md"


def moment(seconds: float) -> str:
    """Return a time, in UTC as the backups are listed."""
    return time.strftime("%F %R UTC", time.gmtime(seconds))


def same_disk() -> bool:
    """Return whether backups/ is on the disk of what it is a backup of."""
    root = stack.root_folder()
    return root.is_dir() and FOLDER.is_dir() and root.stat().st_dev == FOLDER.stat().st_dev
