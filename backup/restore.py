"""Restore: next to what is there, compared with the manifest, and then swapped with it by renaming.

`make restore` holds the other end of standard input and output: it stops the workers between READY and `swap`. If it is
killed, or types nothing, nothing has been touched.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backup import databases, repository, save
from backup.places import DATA, JOURNAL, RESTORING, SNAPSHOT, VOLUMES, WORK, Failed
from backup.save import Manifest

SHOWN = 3
Place = Callable[[Path], Path]
# Free space beyond what is written
ROOM_BYTES = 50_000_000


def restoring(folder: Path) -> Path:
    """Return where a volume's new contents are before the swap."""
    return folder / WORK / RESTORING


def replaced(folder: Path) -> Path:
    """Return where a volume's old contents are after it."""
    return folder / WORK / "replaced"


def run(wanted: str) -> None:
    """Restore FROM, in the steps that `make restore` asks for. Raises Failed, with nothing touched before the swap."""
    # The one that asks may be killed; a swap that has begun is ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with save.lock():
        finish()
        snapshot = repository.find(wanted)
        try:
            manifest = fetched(snapshot["id"])
            say("READY", snapshot, manifest)
            if sys.stdin.readline().strip() != "swap":
                raise Failed("Nothing was changed")
            swap()
        finally:
            if not JOURNAL.exists():
                clear(restoring)
        say("SWAPPED", snapshot, manifest)
        if sys.stdin.readline().strip() == "back":
            swap_back()
            say("BACK", snapshot, manifest)


def say(word: str, snapshot: dict[str, Any], manifest: Manifest) -> None:
    """Tell `make restore` how far it is, in one line."""
    told = {
        "id": snapshot["id"][:8],
        "time": snapshot["time"],
        "tag": repository.tag_of(snapshot),
        "summary": manifest.summary(),
        "about": manifest.about,
        "migrations": sorted({name for one in manifest.databases.values() for name in one["migrations"]}),
        "replaced": [str(replaced(one)) for one in VOLUMES if replaced(one).is_dir() and any(replaced(one).iterdir())],
    }
    print(word, json.dumps(told), flush=True)


def fetched(snapshot: str) -> Manifest:
    """Write everything next to what is there, and compare it. Raises Failed."""
    manifest = Manifest.load(repository.read(snapshot, SNAPSHOT / "manifest.json"))
    wanted = {Path(path): size for path, size in repository.files(snapshot)}
    clear(restoring)
    refuse_what_cannot_be_moved()
    for folder in VOLUMES:
        mine = {path: size for path, size in wanted.items() if volume_of(path) == folder}
        enough_room(folder, sum(mine.values()))
        restoring(folder).mkdir(parents=True, mode=0o700)
        inner = [f"/{other.name}" for other in VOLUMES if other.parent == folder]
        if mine:
            repository.restore(snapshot, folder, restoring(folder), *inner)
    copies = SNAPSHOT / "databases"
    if manifest.databases:
        enough_room(DATA, sum(size for path, size in wanted.items() if path.is_relative_to(copies)))
        repository.restore(snapshot, copies, restoring(DATA))
    compare(manifest, wanted)
    return manifest


def refuse_what_cannot_be_moved() -> None:
    """Raise Failed if a folder is another user's: it could not be put aside."""
    for path in (path for folder in VOLUMES for path in entries(folder)):
        if path.is_dir() and not path.is_symlink() and not os.access(path, os.W_OK):
            raise Failed(
                f"{path} belongs to another user, so it cannot be put aside. Nothing was changed. Give it back: "
                f"docker compose run --rm --no-deps --user 0 --cap-add CHOWN release chown -R 10001:10001 {path}"
            )


def volume_of(path: Path) -> Path | None:
    """Return the volume that a file of a snapshot is in; None for what is only in the snapshot."""
    # The inner ones come last.
    return next((folder for folder in reversed(VOLUMES) if path.is_relative_to(folder)), None)


def enough_room(folder: Path, size: int) -> None:
    """Raise Failed if a volume's disk has no room for so many bytes more."""
    free = shutil.disk_usage(folder).free
    if free < size + ROOM_BYTES:
        raise Failed(
            f"The disk of {folder} has {free / 1e6:.0f} MB free. What is restored is written next to what is there and "
            f"takes {size / 1e6:.0f} MB and {ROOM_BYTES / 1e6:.0f} MB to spare. Make room: df -h. Nothing was changed"
        )


def compare(manifest: Manifest, wanted: dict[Path, int]) -> None:
    """Compare every file with the list in the snapshot, and every table with the manifest. Raises Failed."""
    wrong = [
        str(path)
        for path, size in wanted.items()
        # A name that is not UTF-8 is not what restic lists.
        if (folder := volume_of(path))
        and "\ufffd" not in str(path)
        and save.size_of(restoring(folder) / path.relative_to(folder)) != size
    ]
    for name, known in manifest.databases.items():
        copy = restoring(DATA) / name
        if not copy.is_file() or (known["rows"] and databases.rows(copy) != known["rows"]):
            wrong.append(f"the rows of {name}")
    if wrong:
        raise Failed(
            f"What was restored is not what was backed up: {', '.join(wrong[:SHOWN])}. Nothing was changed. "
            "Restore another one: make backups"
        )


def clear(place: Place) -> None:
    """Remove a place in each volume."""
    for folder in VOLUMES:
        shutil.rmtree(place(folder), ignore_errors=True)


def swap() -> None:
    """Put what is there aside and the new in its place. What an earlier restore has put aside is removed."""
    clear(replaced)
    exchange(restoring, replaced)


def swap_back() -> None:
    """Put back what the swap has put aside."""
    exchange(replaced, restoring)
    clear(restoring)
    clear(replaced)


def exchange(source: Place, aside: Place) -> None:
    """Put what is in the volumes aside, and what is in `source` in its place."""
    for folder in VOLUMES:
        aside(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    old = [str(path) for folder in VOLUMES for path in entries(folder)]
    new = [str(folder / path.name) for folder in VOLUMES for path in sorted(source(folder).iterdir())]
    begin({"old": old, "new": new, "source": source(DATA).name, "aside": aside(DATA).name})
    finish()


def entries(folder: Path) -> list[Path]:
    """Return what is in a volume and changes places."""
    return sorted(path for path in folder.iterdir() if path.name not in VOLUMES[folder])


def begin(journal: dict[str, Any]) -> None:
    """Write down which renames will be made, before the first of them."""
    new = JOURNAL.with_suffix(".new")
    with new.open("w") as file:
        json.dump(journal, file)
        file.flush()
        os.fsync(file.fileno())
    new.rename(JOURNAL)


def finish() -> None:
    """Make the renames of the journal that are not made yet. Which they are is seen: a second call is harmless.

    All of the old are put aside before the first of the new gets its place, since both may have one name; one that has
    a name put aside already is new.
    """
    if not JOURNAL.exists():
        return
    journal = json.loads(JOURNAL.read_text())
    for path in map(Path, journal["old"]):
        moved(path, path.parent / WORK / journal["aside"] / path.name)
    for path in map(Path, journal["new"]):
        moved(path.parent / WORK / journal["source"] / path.name, path)
    for folder in VOLUMES:
        sync(folder)
    JOURNAL.unlink()


def moved(source: Path, target: Path) -> None:
    """Rename, unless that is done already."""
    if os.path.lexists(source) and not os.path.lexists(target):
        source.rename(target)


def sync(folder: Path) -> None:
    """Have what was renamed in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
