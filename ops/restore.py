"""`make restore`: a backup, back into the volumes; on an empty machine, the settings as well.

Everything is written next to what is there and compared before anything is replaced. Then the workers stop, requests
wait in uwsgi-socket, and old and new change places by renaming. What does not serve after that is changed back.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ops import backup, base_image, change, engine, front_page, settings, stack, up
from ops.change import timed
from ops.console import ROOT, Stop, quiet
from ops.deploy import RELEASE_SECONDS
from ops.launch import is_well
from ops.stack import Container

BUILD_SECONDS = 900
# A connection that drops, and `kill`: by default they end Python at once, with the workers stopped. And Ctrl-C, twice.
SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
# What may go wrong on the way back
PROBLEMS = (Stop, OSError, subprocess.SubprocessError)
# Where the database is in every container that may have it open
DATA = "/data"


class HalfWay(Stop):
    """Neither restored nor changed back."""


def restore(source: str) -> None:
    """Restore a backup: FROM=latest, a day or an id. Raises Stop, with what was there untouched or put back."""
    engine.ensure()
    backup.refuse_no_backups()
    if not backup.PASSWORD.is_file():
        raise Stop("secrets/backup_password is missing, which alone opens backups/. Put the site's there")
    backup.ensure()
    with laid_settings(source) as laid:
        settings.ensure()
        for image in base_image.names():
            base_image.ensure(image)
        with change.change(f"restore FROM={source}"):
            files = backup.files_with_backup()
            refuse_other_commands()
            change.claim()
            with timed("build"):
                stack.build(files, "backup")
            running = [one for one in stack.containers() if one.running and one.service != "backup"]
            holding = [one for one in running if DATA in one.volumes]
            told = exchanged(files, source, holding)
    if told["replaced"]:
        print(f"What it replaced is kept for a week: {', '.join(told['replaced'])} (docs/backup.md)")
    if laid or not any(container.service == "uwsgi" for container in holding):
        print("\nStarting the site on what was restored")
        up.up()
    else:
        front_page.show()


def refuse_other_commands() -> None:
    """Raise Stop while a command has the database open, or may: it would go on writing to the old one."""
    commands = [one.name for one in stack.all_containers() if one.running and one.one_off and one.service != "backup"]
    if commands:
        raise Stop(f"A command is under way in {commands[0]}. Nothing was changed. Try again when it has ended")


def exchanged(files: Sequence[str], source: str, holding: Sequence[Container]) -> dict[str, Any]:
    """Have the backup fetched and compared, and swapped with what is there while those that hold it open are stopped.

    Returns the container's report. Raises HalfWay if what was there before could not be put back or started.
    """
    serving = [container for container in holding if container.service == "uwsgi"]
    with conversation(files, source) as talk:
        with timed("restore next to what is there"):
            told = talk.expect("READY")
        print(f"    {told['id']} of {told['time'][:16].replace('T', ' ')} UTC, {told['tag']}: {told['summary']}")
        refuse_another_engine(files, told)
        before = migrations(serving)
        began = time.monotonic()
        with signals_as_stop():
            try:
                halt(holding)
                # While it was fetched, one may have begun.
                refuse_other_commands()
                talk.say("swap")
                told = talk.expect("SWAPPED")
                if serving and before != told["migrations"]:
                    with timed("migrations"):
                        stack.run_once(
                            files, "release", "release.py", seconds=RELEASE_SECONDS, label=stack.MIGRATION_LABEL
                        )
                start(holding)
            except BaseException as failed:
                if left := way_back(talk, holding, source):
                    raise HalfWay(f"{failed}\n\n{left}") from failed
                raise
        with suppress(Stop):
            talk.say("done")
        if serving:
            print(f"  requests waited for at most          {time.monotonic() - began:6.1f} s", flush=True)
    return told


def way_back(talk: Conversation, holding: Sequence[Container], source: str) -> str:
    """Have what was there before put back, and start the workers, whatever goes wrong on the way.

    Returns what went wrong and what to type then.
    """
    wrong = []
    if talk.said == "swap":
        try:
            if talk.heard != "SWAPPED":
                talk.expect("SWAPPED")
            # What it writes to is going to be put away.
            change.remove([one.id for one in change.migrating(stack.all_containers())])
            # A site that does not start is not restored.
            halt(holding)
            talk.say("back")
            talk.expect("BACK")
        except PROBLEMS as problem:
            wrong.append(f"What was there before was not put back: {problem}")
    try:
        start(holding)
    except PROBLEMS as problem:
        wrong.append(f"The site does not serve: {problem}")
    if wrong:
        return "\n".join(
            [
                *wrong,
                f"Next: make restore FROM={source}, which ends a swap that was cut off and says what is there; then: "
                "make up. What was replaced is kept in the volumes (docs/backup.md)",
            ]
        )
    if talk.heard == "BACK":
        # The terminal may be gone.
        with suppress(OSError):
            print("Not restored: what was there before is back", flush=True)
    return ""


@contextmanager
def signals_as_stop() -> Iterator[None]:
    """Have a signal that would end this raise Stop, once: a second one must not cut off the way back."""

    def ended(number: int, _: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise Stop(f"make restore was ended by {signal.Signals(number).name}")

    # With nohup it is ignored, and stays so.
    before = {one: signal.getsignal(one) for one in SIGNALS if signal.getsignal(one) is not signal.SIG_IGN}
    for one in before:
        signal.signal(one, ended)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class Conversation:
    """The container that restores: it says how far it is, and waits for a word before each step that matters."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        # The last word of each
        self.said = self.heard = ""

    def expect(self, word: str) -> dict[str, Any]:
        """Return what comes with the next line, which begins with this word. Raises Stop with the message instead."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line.startswith(f"{word} "):
            raise self.ended(line)
        self.heard = word
        return dict(json.loads(line.removeprefix(word)))

    def say(self, word: str) -> None:
        """Send a word. Raises Stop if the container has ended."""
        assert self.process.stdin
        try:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
        except OSError as gone:
            raise self.ended("") from gone
        self.said = word

    def ended(self, line: str) -> Stop:
        """Return what the container said at its end."""
        self.process.wait()
        assert self.process.stderr
        return Stop(f"{line}{self.process.stderr.read()}".strip() or "The container that restores was killed")


@contextmanager
def conversation(files: Sequence[str], source: str) -> Iterator[Conversation]:
    """Run the container that restores. Marked as a trial: the next verb removes it if this one is killed."""
    words = backup.command(files, "restore", source, options=["--label", f"{stack.TRIAL_LABEL}=1"])
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A terminal that closes or Ctrl-C reaches this process, which then decides, and not the other end.
        start_new_session=True,
    ) as process:
        try:
            yield Conversation(process)
        finally:
            # The end of its input ends it.
            assert process.stdin
            with suppress(OSError):
                process.stdin.close()


def refuse_another_engine(files: Sequence[str], told: dict[str, Any]) -> None:
    """Raise Stop if the site has its database elsewhere than when the backup was made."""
    now = backup.engine_of(backup.database_url(files))
    then = told["about"].get("engine", now)
    if now != then:
        raise Stop(
            f"This backup is of a site on {then}, and DATABASE_URL in .env names {now}. Nothing was changed. Set it as "
            "it was, restore, and then move the rows: make manage CMD=dumpdata"
        )


def migrations(serving: Sequence[Container]) -> list[str]:
    """Return the migrations that the running release has applied; nothing if that cannot be asked."""
    if not serving:
        return []
    shown = quiet(["docker", "exec", serving[0].id, "python", "manage.py", "showmigrations", "--plan"], seconds=60)
    return sorted(line.split()[-1] for line in (shown or "").splitlines() if line.startswith("[X]"))


def halt(holding: Sequence[Container]) -> None:
    """Stop containers gracefully: they answer what they have, and all further requests wait in uwsgi-socket."""
    if holding:
        stack.docker("stop", *(container.id for container in holding), seconds=stack.stop_seconds(holding))


def start(holding: Sequence[Container]) -> None:
    """Start containers and wait until each is healthy, or runs, if it has no health check. Raises Stop otherwise."""
    ids = [container.id for container in holding]
    if not ids:
        return
    stack.docker("start", *ids)
    stack.wait_for_new(ids, "It does not become healthy (above).", lambda found: all(map(is_well, found)))


@contextmanager
def laid_settings(source: str) -> Iterator[list[Path]]:
    """Put back the settings that are missing here; take them away again if what follows leaves all as it was.

    They say which stack this is, so they come first.
    """
    laid: list[Path] = []
    try:
        lay_settings(source, laid)
        yield laid
    except HalfWay:
        raise
    except BaseException:
        for place in laid:
            place.unlink(missing_ok=True)
        if laid:
            with suppress(OSError):
                print(f"Taken away again: {', '.join(str(place.relative_to(ROOT)) for place in laid)}")
        raise


def lay_settings(source: str, laid: list[Path]) -> None:
    """Put back the settings that are missing here (`laid`), and name those that are here and differ. Raises Stop."""
    with timed("settings of the backup"):
        archive = read_settings(source)
    different = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for entry in opened.getmembers():
            content, place = opened.extractfile(entry), ROOT / entry.name
            if content is None or entry.name == backup.ABOUT:
                continue
            text = content.read()
            if lay(place, text):
                laid.append(place)
            elif place.read_bytes() != text:
                different.append(entry.name)
    if different:
        print(f"Kept as they are here, though the backup has others: {', '.join(sorted(different))} (docs/backup.md)")
    # What the settings were before is no longer so.
    stack.read_settings.cache_clear()


def read_settings(source: str) -> bytes:
    """Return the settings in a backup, as a tar archive. Not by Compose, which would need them. Raises Stop."""
    base = base_image.name()
    base_image.ensure(base)
    arguments = (f"BASE_IMAGE={base}", f"PYTHON_IMAGE={base}", "APT_MIRROR")
    words = [word for argument in arguments for word in ("--build-arg", argument)]
    image = stack.docker("build", "--quiet", *words, str(ROOT / "backup"), seconds=BUILD_SECONDS).strip()
    places = {backup.FOLDER: "/backups", backup.PASSWORD: "/run/secrets/backup_password"}
    mounts = [word for here, there in places.items() for word in ("--volume", f"{here}:{there}:ro")]
    command = ["docker", "run", *backup.BARE, *mounts, image, "settings-of", source]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise Stop(done.stderr.decode(errors="replace").strip())
    return done.stdout


def lay(place: Path, content: bytes) -> bool:
    """Write a file that is missing, and return whether it was. Raises Stop if it is outside of this folder."""
    if not place.resolve().is_relative_to(ROOT):
        raise Stop(f"The backup has a file outside of the checkout: {place}. Nothing was changed.")
    if place.exists():
        return False
    secret = place.is_relative_to(ROOT / "secrets")
    place.parent.mkdir(mode=0o700 if secret else 0o755, exist_ok=True)
    settings.write(place, content, settings.MODE if secret else 0o600)
    print(f"Laid back {place.relative_to(ROOT)}")
    return True
