"""Restore: next to what is there, compared with the manifest, and then swapped with it by renaming.

`make restore` holds the other end of standard input and output: it stops the workers between READY and `swap`. If it is
killed, or types nothing, nothing has been touched.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backup import databases, repository, save
from backup.places import COPIES, DATA, JOURNAL, REPLACED, REPLACED_FORM, RESTORING, SNAPSHOT, VOLUMES, WORK, Failed
from backup.save import Manifest, enough_room, volume_of

SHOWN = 3


def restoring(folder: Path) -> Path:
    """Return where a volume's new contents are before the swap."""
    return folder / WORK / RESTORING


def run(wanted: str) -> None:
    """Restore FROM, in the steps that `make restore` asks for. Raises Failed, with nothing touched before the swap."""
    # The one that asks may be killed; a swap that has begun is ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with save.lock():
        end_what_was_cut_off()
        snapshot = repository.find(wanted)
        try:
            manifest = fetched(snapshot["id"])
            say("READY", snapshot, manifest)
            if sys.stdin.readline().strip() != "swap":
                raise Failed("Nothing was changed")
            aside = swap()
        finally:
            if not JOURNAL.exists():
                clear()
        say("SWAPPED", snapshot, manifest, aside)
        if sys.stdin.readline().strip() == "back":
            swap_back(aside)
            say("BACK", snapshot, manifest)


def end_what_was_cut_off() -> None:
    """End a swap that was cut off, and raise Failed, which says so: its owner must see what is there now."""
    if not JOURNAL.exists():
        return
    aside = json.loads(JOURNAL.read_text())["aside"]
    finish()
    clear()
    if aside == RESTORING:
        now = "what was there before that restore is back"
    else:
        now = f"what it restored is in place, and what it replaced is kept: {', '.join(kept(aside))}"
    raise Failed(
        f"A restore had been cut off in the middle of its swap. That is ended: {now}. Nothing else was restored. "
        "Start the site: make up. For another backup after that: make restore"
    )


def kept(aside: str) -> list[str]:
    """Return the folders in which a swap has put something aside."""
    places = [folder / WORK / aside for folder in VOLUMES]
    return [str(place) for place in places if place.is_dir() and any(place.iterdir())]


def say(word: str, snapshot: dict[str, Any], manifest: Manifest, aside: str = "") -> None:
    """Tell `make restore` how far it is, in one line."""
    told = {
        "id": snapshot["id"][:8],
        "time": snapshot["time"],
        "tag": repository.tag_of(snapshot),
        "summary": manifest.summary(),
        "about": manifest.about,
        "migrations": sorted({name for one in manifest.databases.values() for name in one["migrations"]}),
        "replaced": kept(aside) if aside else [],
    }
    print(word, json.dumps(told), flush=True)


def fetched(snapshot: str) -> Manifest:
    """Write everything next to what is there, and compare it. Raises Failed."""
    manifest = Manifest.load(repository.read(snapshot, SNAPSHOT / "manifest.json"))
    sizes: Counter[Path | None] = Counter()
    for path, size in repository.files(snapshot):
        sizes[COPIES if Path(path).is_relative_to(COPIES) else volume_of(Path(path))] += size
    clear()
    refuse_what_cannot_be_moved()
    for folder in VOLUMES:
        room(folder, sizes[folder])
        restoring(folder).mkdir(parents=True, mode=0o700)
        inner = [f"/{other.name}" for other in VOLUMES if other.parent == folder]
        if folder in sizes:
            repository.restore(snapshot, folder, restoring(folder), *inner)
    if manifest.databases:
        room(DATA, sizes[COPIES])
        repository.restore(snapshot, COPIES, restoring(DATA))
    compare(manifest, repository.files(snapshot))
    # Before the swap, which may be on the disk first: should the power fail, names without contents would be left.
    os.sync()
    return manifest


def refuse_what_cannot_be_moved() -> None:
    """Raise Failed if a folder is another user's: it could not be put aside. What is in it moves along."""
    for path in (path for folder in VOLUMES for path in entries(folder)):
        if path.is_dir() and not path.is_symlink() and not os.access(path, os.W_OK):
            raise Failed(
                f"{path} belongs to another user, so it cannot be put aside. Nothing was changed. Give it back: "
                f"docker compose run --rm --no-deps --user 0 --cap-add CHOWN release chown -R 10001:10001 {path}"
            )


def room(folder: Path, size: int) -> None:
    """Raise Failed if a volume's disk has no room for so many bytes more."""
    enough_room(folder, size, "What is restored is written next to what is there and", repository.UNTOUCHED)


def compare(manifest: Manifest, wanted: Iterable[tuple[str, int]]) -> None:
    """Compare every file with the list in the snapshot, and every table with the manifest. Raises Failed."""
    wrong = [
        path
        for path, size in wanted
        # A name that is not UTF-8 is not what restic lists.
        if (folder := volume_of(Path(path)))
        and "\ufffd" not in path
        and save.size_of(restoring(folder) / Path(path).relative_to(folder)) != size
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


def clear() -> None:
    """Remove what is being restored, in each volume."""
    for folder in VOLUMES:
        shutil.rmtree(restoring(folder), ignore_errors=True)


def swap() -> str:
    """Put the new in its place and what is there aside. Returns the name of the folder that has it, in each volume.

    A folder that is new: what an earlier restore has put aside may be the only copy of something.
    """
    aside = f"{REPLACED}{time.strftime(REPLACED_FORM, time.gmtime())}"
    exchange(RESTORING, aside)
    return aside


def swap_back(aside: str) -> None:
    """Put back what the swap has put aside."""
    exchange(aside, RESTORING)
    clear()
    for folder in VOLUMES:
        # It is empty, or it stays.
        with contextlib.suppress(OSError):
            (folder / WORK / aside).rmdir()


def exchange(source: str, aside: str) -> None:
    """Put what is in the volumes aside, and what is in the folder `source` of each in its place."""
    for folder in VOLUMES:
        # Must not be there: what has the name of something in it would be taken for put aside.
        (folder / WORK / aside).mkdir(mode=0o700)
    old = [str(path) for folder in VOLUMES for path in entries(folder)]
    new = [str(folder / path.name) for folder in VOLUMES for path in sorted((folder / WORK / source).iterdir())]
    begin({"old": old, "new": new, "source": source, "aside": aside})
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
    sync(JOURNAL.parent)


def finish() -> None:
    """Make the renames of the journal that are not made yet. Which they are is seen: a second call is harmless.

    All of the old are put aside before the first of the new gets its place, since both may have one name; one that has
    a name put aside already is new. Raises Failed if one cannot be made.
    """
    journal = json.loads(JOURNAL.read_text())
    for path in map(Path, journal["old"]):
        target = path.parent / WORK / journal["aside"] / path.name
        if os.path.lexists(path) and not os.path.lexists(target):
            path.rename(target)
    for path in map(Path, journal["new"]):
        source = path.parent / WORK / journal["source"] / path.name
        if os.path.lexists(source) == os.path.lexists(path):
            wrong = "is there, though it was put aside" if os.path.lexists(path) else "is not there any more"
            raise Failed(
                f"{source} cannot take the place of {path}, which {wrong}: another program has written to the volume. "
                "Move one away, and end the swap: make restore FROM=latest"
            )
        if os.path.lexists(source):
            source.rename(path)
    for folder in VOLUMES:
        for place in (folder, folder / WORK / journal["source"], folder / WORK / journal["aside"]):
            if place.is_dir():
                sync(place)
    JOURNAL.unlink()


def sync(folder: Path) -> None:
    """Have what was renamed in a folder on the disk, should the power fail."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
