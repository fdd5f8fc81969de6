"""One run: databases, uploads and settings go into one snapshot, which is read back before an old one is forgotten."""

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import stat
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backup import databases, repository
from backup.places import (
    BACKUPS,
    COPIES,
    DATA,
    JOURNAL,
    LAST,
    REPLACED,
    REPLACED_FORM,
    RESTORING,
    SETTINGS,
    SNAPSHOT,
    STAGING,
    VOLUMES,
    WORK,
    Failed,
)

FORMAT = 1
PRUNE_SECONDS = 7 * 86_400
# A restore of the wrong backup may be noticed late.
REPLACED_SECONDS = 7 * 86_400
# Free space beyond what is written
ROOM_BYTES = 50_000_000
# What `migrate` fills on an empty database as well, and what empties itself: their rows say nothing about the site's.
NOT_COUNTED = {"django_migrations", "django_content_type", "auth_permission", "django_site", "django_session"}
# Fewer may be temporary ones.
FILES_LOST = 10
# Of what is missing, by name
SHOWN = 3
UNFINISHED = "unfinished"
# SQLite's words, and the kernel's
FULL = ("disk is full", "No space left on device")
NEXT = f"{repository.KEPT} See docs/backup.md, A suspect backup"


@dataclass
class Manifest:
    """What a snapshot is made of, as it was read from the running site."""

    format: int = FORMAT
    # The release that serves, and where the site has its database, as the verb that handed over the settings says
    about: dict[str, str] = field(default_factory=dict)
    # By its path in /data: engine, version, rows of each table, migrations
    databases: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Sizes in bytes, by path
    files: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, text: str) -> "Manifest":
        """Return what was written. Raises Failed if a newer version of this has written it."""
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise Failed("A newer version of this stack has made this backup. Update the checkout: docs/forking.md")
        return cls(**found)

    def rows(self) -> dict[str, int]:
        """Return how many rows of the site each database has."""
        return {
            name: sum(count for table, count in one["rows"].items() if table not in NOT_COUNTED)
            for name, one in self.databases.items()
        }

    def files_of_volumes(self) -> dict[str, int]:
        """Return how many files each volume has."""
        return Counter(str(volume_of(Path(path))) for path in self.files)

    def summary(self) -> str:
        """Return in words what is in it."""
        tables = [count for one in self.databases.values() for count in one["rows"].values()]
        size = sum(self.files.values()) / 1e6
        stores = "no database" if not self.databases else f"{sum(tables)} rows in {len(tables)} tables"
        return f"{stores}, {len(self.files)} files of {size:.1f} MB"


def volume_of(path: Path) -> Path | None:
    """Return the volume that a file of a snapshot is in; None for what is only in the snapshot."""
    # The inner ones come last.
    return next((folder for folder in reversed(VOLUMES) if path.is_relative_to(folder)), None)


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Be the only one that backs up or restores. Raises Failed if another does; the kernel unlocks what is killed."""
    with (STAGING / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            raise Failed("A backup or a restore of this stack is under way. Try again when it has ended") from held
        yield


@contextlib.contextmanager
def settings_held() -> Iterator[None]:
    """Wait until the settings are neither being replaced nor read, and keep others from both."""
    with (STAGING / "settings.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run() -> bool:
    """Make a backup, write down how it went, and return whether it is good."""
    began = time.time()
    try:
        with lock():
            before = last()
            # A run that is killed, as at its memory limit, writes nothing more. It must not begin again at once.
            cut_off = "it was cut off, or is under way still. See why: make logs S=backup"
            write_down({**before, "tried": began, "result": UNFINISHED, "said": cut_off})
            try:
                repository.ensure()
                note, problems = saved(before, began)
            except (Failed, OSError, sqlite3.Error) as failed:
                note, problems = {}, [reason(failed)]
                result = "failed"
            else:
                result = repository.SUSPECT if problems else repository.GOOD
            write_down({**before, **note, "tried": began, "result": result, "said": "; ".join(problems)})
    except Failed as busy:
        problems = [str(busy)]
    for problem in problems:
        print(f"backup: {problem}", flush=True)
    return not problems


def reason(failed: Exception) -> str:
    """Return a failure as a sentence."""
    return f"The disk is full. {repository.KEPT} Make room: df -h" if is_full(failed) else str(failed)


def is_full(failed: Exception) -> bool:
    """Return whether a failure is that of a full disk."""
    return not isinstance(failed, Failed) and any(words in str(failed) for words in FULL)


def saved(before: dict[str, Any], began: float) -> tuple[dict[str, Any], list[str]]:
    """Put everything into one snapshot and check it. Returns what to write down, and what is wrong with the copy."""
    if not SETTINGS.is_dir():
        raise Failed("The settings (.env, project.env, secrets/) have not been handed over yet. Type: make backup")
    if JOURNAL.exists():
        # Old and new are mixed.
        raise Failed("A restore was cut off in the middle of its swap. End it: make restore FROM=latest")
    shutil.rmtree(SNAPSHOT, ignore_errors=True)
    for folder in VOLUMES:
        # What a restore has left that was killed before its swap
        shutil.rmtree(folder / WORK / RESTORING, ignore_errors=True)
    SNAPSHOT.mkdir(mode=0o700)
    try:
        with settings_held():
            shutil.copytree(SETTINGS, SNAPSHOT / "settings")
        # Before the uploads: a row may lack no file; a file may lack its row.
        problems: list[str] = []
        sources = databases.find(DATA, VOLUMES[DATA], problems)
        copies = sum(map(databases.size, sources))
        enough_room(STAGING, copies, "A copy of the databases", repository.KEPT)
        manifest = copied(sources, problems)
        not_files = {str(path) + suffix for path in sources for suffix in ("", *databases.COMPANIONS)}
        since, new = repository.time_of_last_good(), copies
        for path, found in listed(problems):
            if str(path) not in not_files:
                manifest.files[str(path)] = found.st_size
                new += found.st_size if found.st_mtime > since else 0
        enough_room(BACKUPS, new, "What is new in this backup", repository.KEPT)
        with (SNAPSHOT / "manifest.json").open("w") as file:
            json.dump(vars(manifest), file)
        snapshot = put_into_repository(left_out(not_files))
        problems += lost(before, manifest) + missing(manifest, snapshot)
        damage = repository.check()
    finally:
        shutil.rmtree(SNAPSHOT, ignore_errors=True)
    problems += [damage] if damage else []
    tag = repository.SUSPECT if problems else repository.GOOD
    snapshot = repository.mark(snapshot, tag)
    print(f"backup {snapshot[:8]}, {tag}, {time.time() - began:.0f} s: {manifest.summary()}", flush=True)
    prune = began - before.get("pruned", 0) > PRUNE_SECONDS and not damage
    repository.forget(tag, prune=prune)
    pruned = {"pruned": began} if prune else {}
    if problems:
        return {**pruned, "suspect": snapshot[:8]}, problems
    forget_what_was_replaced(began)
    counted = {"rows": manifest.rows(), "files": manifest.files_of_volumes()}
    return {**pruned, **counted, "good": began, "id": snapshot[:8], "suspect": "", "summary": manifest.summary()}, []


def enough_room(folder: Path, size: int, what: str, then: str) -> None:
    """Raise Failed if a disk has no room for so many bytes more. A disk that is full stops the site as well."""
    free = shutil.disk_usage(folder).free
    if free < size + ROOM_BYTES:
        raise Failed(
            f"The disk of {folder} has {free / 1e6:.0f} MB free. {what} takes up to {size / 1e6:.0f} MB, and "
            f"{ROOM_BYTES / 1e6:.0f} MB are kept free. Make room: df -h. {then}"
        )


def put_into_repository(names: list[str]) -> str:
    """Put the copies and the volumes into a new snapshot, without what has these names, and return its id."""
    try:
        return repository.save([SNAPSHOT, DATA], names)
    except Failed:
        # What it has written would stay until a run is good, which it cannot be on a disk that is full.
        shutil.rmtree(SNAPSHOT, ignore_errors=True)
        repository.free_what_is_in_no_snapshot()
        raise


def forget_what_was_replaced(now: float) -> None:
    """Remove what a restore has put aside, a week after it and only after a good backup."""
    oldest = REPLACED + time.strftime(REPLACED_FORM, time.gmtime(now - REPLACED_SECONDS))
    for place in (place for folder in VOLUMES for place in (folder / WORK).glob(f"{REPLACED}*")):
        if place.name < oldest:
            shutil.rmtree(place, ignore_errors=True)
            if place.exists():
                print(f"backup: {place} cannot be removed: something in it is another user's (docs/backup.md)")


def copied(sources: list[Path], problems: list[str]) -> Manifest:
    """Copy the databases into the staging folder and return their part of the manifest; add what is wrong with them."""
    manifest = Manifest(about=json.loads((SNAPSHOT / "settings/about.json").read_text()))
    for source in sources:
        name = str(source.relative_to(DATA))
        copy = COPIES / name
        try:
            databases.copy(source, copy)
        except sqlite3.DatabaseError as refused:
            if is_full(refused):
                raise
            raise Failed(f"The database {source} cannot be copied: {refused}. {NEXT}") from refused
        shutil.copystat(source, copy)
        if found := databases.problems(copy):
            problems.append(f"The database {source} is damaged: {'; '.join(found)}. {NEXT}")
        manifest.databases[name] = {"engine": "sqlite", "version": sqlite3.sqlite_version, **contents(copy)}
    return manifest


def lost(before: Mapping[str, Any], manifest: Manifest) -> list[str]:
    """Return what has lost more than half since the last good backup, as after a mishap with a volume.

    Otherwise, after some nights, only backups without it would be left. Not table by table: there are queues, which
    are emptied every night.
    """
    problems = []
    for what, now, least in (("rows", manifest.rows(), 1), ("files", manifest.files_of_volumes(), FILES_LOST)):
        for name, was in before.get(what, {}).items():
            has = now.get(name, 0)
            if has * 2 < was and was - has >= least:
                problems.append(
                    f"{DATA / name} had {was} {what} in the last good backup and has {has} now. {repository.KEPT} If "
                    "that is right: sudo rm backups/last.json && make backup; otherwise: make restore FROM=latest"
                )
    return problems


def contents(copy: Path) -> dict[str, Any]:
    """Return what can be counted in a copy: nothing, if it is too damaged."""
    try:
        return {"rows": databases.rows(copy), "migrations": databases.migrations(copy)}
    except sqlite3.Error:
        return {"rows": {}, "migrations": []}


def left_out(not_files: set[str]) -> list[str]:
    """Return the patterns of what restic shall not read: databases, of which it gets the copies, and what is ours."""
    names = [folder / name for folder, some in VOLUMES.items() for name in some if folder / name not in VOLUMES]
    return [repository.literal(Path(path)) for path in sorted([*not_files, *map(str, names)])]


def listed(problems: list[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """Return each file of the volumes that belongs into a backup; add what cannot be read to `problems`."""
    for folder, kept_out in VOLUMES.items():
        for path in databases.walk(folder, kept_out, problems):
            # Deleted by the site while we look, perhaps
            with contextlib.suppress(FileNotFoundError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield path, found


def missing(manifest: Manifest, snapshot: str) -> list[str]:
    """Return what of the manifest is not in the snapshot as it was listed, unless the site has changed it since."""
    copies = {str(COPIES / name) for name in manifest.databases}
    # What has not been found yet, or not at its size
    left = {**manifest.files, **{copy: size_of(Path(copy)) for copy in copies}}
    for path, size in repository.files(snapshot):
        if left.get(path) == size:
            del left[path]
    # A name that is not UTF-8 is not what restic lists.
    wrong = [path for path, size in left.items() if size_of(Path(path)) == size and is_text(path)]
    if not wrong:
        return []
    return [
        f"{len(wrong)} files are not whole in the backup: {', '.join(wrong[:SHOWN])}. Can user 10001 read them? {NEXT}"
    ]


def is_text(path: str) -> bool:
    """Return whether a path is in UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in path)


def size_of(path: Path) -> int:
    """Return the size of a file, -1 if it is gone."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return -1


def last() -> dict[str, Any]:
    """Return how the last run went."""
    try:
        return dict(json.loads(LAST.read_text()))
    except (OSError, ValueError):
        return {}


def write_down(note: dict[str, Any]) -> None:
    """Write how the run went, for `make status` and `make doctor`, as a whole or not at all."""
    new = LAST.with_suffix(".new")
    # A disk that is full must not hide why the run failed.
    with contextlib.suppress(OSError):
        new.write_text(json.dumps(note) + "\n")
        new.chmod(0o644)
        new.rename(LAST)
