"""The repository: restic, and a sentence for each way in which it can fail."""

import calendar
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from backup.places import REPOSITORY, Failed

PASSWORD = Path("/run/secrets/backup_password")
# A snapshot is `unchecked` until it has been read back; only `good` ones count.
UNCHECKED, GOOD, SUSPECT = "unchecked", "good", "suspect"
# By the name of the container, every run would be another machine's.
HOST = "stack"
# All of two days: one that is made after a mishap must not push out the one from before it.
KEEP = ("--keep-within", "2d", "--keep-daily", "7", "--keep-weekly", "5", "--keep-monthly", "12")
KEEP_SUSPECT = ("--keep-within", "30d")
# While no run is good, nothing else bounds them.
SUSPECT_KEPT = ("--keep-last", "3")
# Of the packed data, read back and compared with its checksums in each run
READ_BACK = "5%"
DATE = re.compile(r"\d{4}-\d\d-\d\d")
# Of restic's own message
LINES = 4
# What a command of restic says first, whatever is wrong
INTRODUCTIONS = ("using temporary cache", "create exclusive lock", "load index", "check ")
# The commands of `make restore`
READING = ("restore", "dump", "ls")
KEPT = "No older backup is forgotten."
UNTOUCHED = "Nothing was changed."
# restic's exit codes; a negative one is the signal that killed it
BY_CODE = {
    -9: "restic was killed, most likely at the memory limit of its container. Raise mem_limit in overrides/backup.yaml",
    10: "There is no backup in backups/. Make one: make backup; or put the folder backups/ of the site here",
    11: "Another program has locked backups/repository. Try again in a minute",
    12: "The password in secrets/backup_password does not open backups/. Put the one here that was made with it: "
    "nothing else opens these backups. To begin new ones: mv backups backups.old && make backup",
}


def restic(*words: str, accepted: Sequence[int] = (0,), repository: Path = REPOSITORY) -> str:
    """Return what a command of restic prints. Raises Failed with a sentence if it fails."""
    return printed(*words, accepted=accepted, repository=repository).decode(errors="replace")


def printed(*words: str, accepted: Sequence[int] = (0,), repository: Path = REPOSITORY) -> bytes:
    """Return what a command of restic prints, as it is. Raises Failed as `restic` does."""
    done = subprocess.run(command(*words, repository=repository), capture_output=True, check=False)
    if done.returncode not in accepted:
        raise Failed(sentence(words[0], done.returncode, done.stderr.decode(errors="replace")))
    return done.stdout


def streamed(*words: str) -> Iterator[bytes]:
    """Return the lines that a command of restic prints, one by one. Raises Failed as `restic` does."""
    with (
        # Not a pipe: it would fill, and no one reads it until the end.
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=errors) as running,
    ):
        assert running.stdout
        yield from running.stdout
        if code := running.wait():
            errors.seek(0)
            raise Failed(sentence(words[0], code, errors.read().decode(errors="replace")))


def command(*words: str, repository: Path = REPOSITORY) -> list[str]:
    """Return a command of restic."""
    # The repository is on the same machine: a cache would be a copy of it.
    return ["restic", "--repo", str(repository), "--password-file", str(PASSWORD), "--no-cache", "--quiet", *words]


def sentence(verb: str, code: int, errors: str) -> str:
    """Return what a failure of restic means for the owner of the site."""
    if code in BY_CODE:
        return BY_CODE[code]
    if "no space left" in errors.lower():
        return f"The disk is full. {UNTOUCHED if verb in READING else KEPT} Make room: df -h"
    if "permission denied" in errors.lower():
        fix = "Give it back to its user: sudo chown -R 10001:10001 backups"
        return f"backups/ cannot be read or written: {first_line(errors)}. {fix}"
    if verb == "check":
        fix = "What is whole in it can be restored. Begin new ones next to it: mv backups backups.old && make backup"
        return f"backups/ is damaged: {first_line(errors)}. {KEPT} {fix}"
    if verb in READING:
        return f"This backup cannot be read: {first_line(errors)}. {UNTOUCHED} Try another one: make backups"
    return f"restic {verb} failed: {last_lines(errors)}"


def first_line(text: str) -> str:
    """Return the line of a message that says what is wrong first."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(INTRODUCTIONS)), "restic gave no reason").rstrip(".:")


def last_lines(errors: str) -> str:
    """Return the end of a message."""
    return "\n".join(errors.strip().splitlines()[-LINES:])


def ensure() -> None:
    """Make the repository if there is none, and clear what a killed run has left. Raises Failed."""
    if not PASSWORD.is_file() or not PASSWORD.read_text().strip():
        raise Failed("secrets/backup_password is empty. Put back the password that was made with backups/")
    if not (REPOSITORY / "config").exists():
        # One that was killed while it was made cannot be used, or made again.
        new = REPOSITORY.with_name("repository.new")
        shutil.rmtree(new, ignore_errors=True)
        restic("init", repository=new)
        new.rename(REPOSITORY)
    # We hold our own lock, so one in the repository is of a run that was killed.
    restic("unlock", "--remove-all")


def save(places: Sequence[Path], left_out: Sequence[str]) -> str:
    """Put these places into a new snapshot, still unchecked, and return its id. Raises Failed."""
    words = [word for pattern in left_out for word in ("--exclude", pattern)]
    # 3: a file could not be read. Whether it has been deleted, or should be there, is seen when the snapshot is read.
    told = restic(
        *("backup", "--json", "--host", HOST, "--group-by", "host", "--tag", UNCHECKED, *words, *map(str, places)),
        accepted=(0, 3),
    )
    for line in reversed(told.splitlines()):
        if '"snapshot_id"' in line:
            return str(json.loads(line)["snapshot_id"])
    raise Failed(f"restic backup printed no snapshot: {last_lines(told)}")


def literal(path: Path) -> str:
    """Return a path as a pattern of restic that matches it alone."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", str(path))


def mark(snapshot: str, tag: str) -> str:
    """Give a snapshot this tag alone, and return its new id."""
    told = restic("tag", "--json", "--set", tag, snapshot)
    for line in told.splitlines():
        if '"new_snapshot_id"' in line:
            return str(json.loads(line)["new_snapshot_id"])
    return snapshot


def snapshots(tag: str = "") -> list[dict[str, Any]]:
    """Return the snapshots (those with a tag), the oldest first. Raises Failed."""
    told = restic("snapshots", "--json", "--no-lock", *(["--tag", tag] if tag else []))
    return sorted(json.loads(told), key=lambda one: str(one["time"]))


def tag_of(snapshot: dict[str, Any]) -> str:
    """Return what is known of a snapshot."""
    return next(iter(snapshot.get("tags") or []), UNCHECKED)


def find(wanted: str) -> dict[str, Any]:
    """Return the snapshot that FROM means: the latest good one, the last good one of a day, or one by its id.

    Raises Failed if there is none.
    """
    found = snapshots()
    good = [one for one in found if tag_of(one) == GOOD]
    if wanted == "latest":
        some = good
    elif DATE.fullmatch(wanted):
        some = [one for one in good if one["time"].startswith(wanted)]
    else:
        some = [one for one in found if len(wanted) >= 4 and one["id"].startswith(wanted)]
    if some:
        return some[-1]
    days = ", ".join(sorted({one["time"][:10] for one in good})[-5:]) or "none"
    raise Failed(
        f"There is no good backup {wanted!r}. The last days that have one: {days}. All of them: make backups; "
        "then make restore FROM=latest, a day (FROM=2026-11-25), or an id"
    )


def time_of_last_good() -> float:
    """Return when the last good snapshot was made, 0 if there is none."""
    good = snapshots(GOOD)
    return calendar.timegm(time.strptime(good[-1]["time"][:19], "%Y-%m-%dT%H:%M:%S")) if good else 0


def files(snapshot: str) -> Iterator[tuple[str, int]]:
    """Return path and size of each file in a snapshot, line by line: of a million, the list has half a gigabyte."""
    for line in streamed("ls", "--json", "--no-lock", snapshot):
        node = json.loads(line)
        if node.get("type") == "file":
            yield node["path"], node.get("size", 0)


def read(snapshot: str, path: Path) -> str:
    """Return the contents of a small file in a snapshot. Raises Failed."""
    return restic("dump", "--no-lock", snapshot, str(path))


def check() -> str:
    """Return what is wrong with the repository, nothing if its structure and the part that is read back are whole."""
    try:
        restic("check", "--read-data-subset", READ_BACK)
    except Failed as found:
        return str(found)
    return ""


def forget(tag: str, *, prune: bool) -> None:
    """After a run that is good or suspect, forget what the rules do not keep; with `prune`, free its space.

    Raises Failed.
    """
    group = ("--group-by", "host")
    if tag == GOOD:
        restic("forget", "--tag", GOOD, *group, *KEEP)
        restic("forget", "--tag", SUSPECT, *group, *KEEP_SUSPECT)
    else:
        restic("forget", "--tag", SUSPECT, *group, *SUSPECT_KEPT)
    # Of runs that were killed
    if killed := [one["id"] for one in snapshots(UNCHECKED)]:
        restic("forget", *killed)
    if prune:
        restic("prune")


def free_what_is_in_no_snapshot() -> None:
    """Free the space of a run that failed, without writing more than a list. Best effort."""
    with contextlib.suppress(Failed):
        restic("prune", "--max-repack-size", "0")


def restore(snapshot: str, source: Path, target: Path, *left_out: str) -> None:
    """Write a folder of a snapshot to a place, and read it again. Raises Failed."""
    words = [word for pattern in left_out for word in ("--exclude", pattern)]
    restic("restore", f"{snapshot}:{source}", "--no-lock", "--target", str(target), "--verify", *words)
