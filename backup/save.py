"""One run: databases, uploads and settings go into one snapshot, which is read back before an old one is forgotten."""

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backup import databases, repository
from backup.places import DATA, JOURNAL, LAST, RESTORING, SETTINGS, SNAPSHOT, STAGING, VOLUMES, WORK, Failed

FORMAT = 1
PRUNE_SECONDS = 7 * 86_400
# Of what is missing, by name
SHOWN = 3
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
        """Return how many rows each database has."""
        return {name: sum(one["rows"].values()) for name, one in self.databases.items()}

    def summary(self) -> str:
        """Return in words what is in it."""
        tables = sum(len(one["rows"]) for one in self.databases.values())
        size = sum(self.files.values()) / 1e6
        stores = "no database" if not self.databases else f"{sum(self.rows().values())} rows in {tables} tables"
        return f"{stores}, {len(self.files)} files of {size:.1f} MB"


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
        sources = databases.find(DATA, VOLUMES[DATA])
        manifest, problems = copied(sources)
        not_files = {str(path) + suffix for path in sources for suffix in ("", *databases.COMPANIONS)}
        manifest.files = {str(path): size for path, size in listed() if str(path) not in not_files}
        (SNAPSHOT / "manifest.json").write_text(json.dumps(vars(manifest)))
        snapshot = repository.save([SNAPSHOT, DATA], left_out(not_files))
        problems += lost(before.get("rows", {}), manifest)
        problems += missing(manifest, snapshot) + [found for found in [repository.check()] if found]
    finally:
        shutil.rmtree(SNAPSHOT, ignore_errors=True)
    tag = repository.SUSPECT if problems else repository.GOOD
    snapshot = repository.mark(snapshot, tag)
    print(f"backup {snapshot[:8]}, {tag}, {time.time() - began:.0f} s: {manifest.summary()}", flush=True)
    if problems:
        return {"suspect": snapshot[:8]}, problems
    prune = began - before.get("pruned", 0) > PRUNE_SECONDS
    repository.forget(prune=prune)
    done = {"good": began, "id": snapshot[:8], "suspect": "", "summary": manifest.summary(), "rows": manifest.rows()}
    return {**done, **({"pruned": began} if prune else {})}, []


def copied(sources: list[Path]) -> tuple[Manifest, list[str]]:
    """Copy the databases into the staging folder, and return their part of the manifest and what is wrong with them."""
    manifest, problems = Manifest(about=json.loads((SNAPSHOT / "settings/about.json").read_text())), []
    for source in sources:
        name = str(source.relative_to(DATA))
        copy = SNAPSHOT / "databases" / name
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
    return manifest, problems


def lost(before: dict[str, int], manifest: Manifest) -> list[str]:
    """Return which databases had rows in the last good backup and have none now, as after a mishap with volume `data`.

    Otherwise, after some nights, only backups without them would be left.
    """
    gone = [name for name, rows in before.items() if rows and not manifest.rows().get(name)]
    return [
        f"The database {DATA / name} had {before[name]} rows in the last good backup and has none now. "
        f"{repository.KEPT} If that is right: sudo rm backups/last.json; otherwise: make restore FROM=latest"
        for name in gone
    ]


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


def listed() -> Iterator[tuple[Path, int]]:
    """Return path and size of each file of the volumes that belongs into a backup."""
    for folder, kept_out in VOLUMES.items():
        for place, folders, files in os.walk(folder):
            if Path(place) == folder:
                folders[:] = [name for name in folders if name not in kept_out]
            for path in (Path(place, name) for name in files):
                # Deleted by the site while we look, perhaps
                with contextlib.suppress(FileNotFoundError):
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode):
                        yield path, found.st_size


def missing(manifest: Manifest, snapshot: str) -> list[str]:
    """Return what of the manifest is not in the snapshot as it was listed, unless the site has changed it since."""
    there = dict(repository.files(snapshot))
    wrong = [
        path
        for path, size in manifest.files.items()
        # A name that is not UTF-8 is not what restic lists.
        if there.get(path) != size and size_of(Path(path)) == size and is_text(path)
    ]
    wrong += [
        name
        for name in manifest.databases
        if (copy := SNAPSHOT / "databases" / name).exists() and there.get(str(copy)) != copy.stat().st_size
    ]
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
