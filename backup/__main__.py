"""What the container is started for: `nightly`, or one command of a verb of `make`."""

import shutil
import sqlite3
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from backup import nightly, repository, restore, save
from backup.places import SETTINGS, SNAPSHOT, Failed

COLUMNS = ("id", "time (UTC)", "state", "files", "size")


def settings() -> None:
    """Keep the settings that come in on standard input, all or none: those of the checkout cannot be read in here."""
    new = SETTINGS.with_name("settings.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for entry in archive:
            unpack(archive, entry, new)
    with save.settings_held():
        shutil.rmtree(SETTINGS, ignore_errors=True)
        new.rename(SETTINGS)


def unpack(archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> None:
    """Write one file of an archive. Not by `extractall`: Debian 12's Python cannot keep that inside of the folder."""
    content = archive.extractfile(entry)
    name = PurePosixPath(entry.name)
    if content is None or name.is_absolute() or ".." in name.parts:
        raise Failed(f"{entry.name} is no file of a checkout. Nothing was changed")
    place = folder / name
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.write_bytes(content.read())
    place.chmod(0o600)


def settings_of(wanted: str) -> None:
    """Write the settings of a snapshot to standard output, as a tar archive."""
    snapshot = repository.find(wanted)["id"]
    archive = repository.printed("dump", "--no-lock", "--archive", "tar", f"{snapshot}:{SNAPSHOT / 'settings'}", "/")
    sys.stdout.buffer.write(archive)


def table() -> None:
    """Print the snapshots, the oldest first."""
    rows = [COLUMNS, *(row(one) for one in repository.snapshots())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(map(str.ljust, cells, widths)).rstrip())


def row(snapshot: dict[str, object]) -> tuple[str, ...]:
    """Return the cells of one snapshot."""
    summary = snapshot.get("summary")
    assert isinstance(summary, dict)
    size = f"{summary['total_bytes_processed'] / 1e6:.1f} MB"
    moment = str(snapshot["time"])[:16].replace("T", " ")
    return str(snapshot["id"])[:8], moment, repository.tag_of(snapshot), str(summary["total_files_processed"]), size


COMMANDS: dict[str, Callable[..., None]] = {
    "nightly": nightly.main,
    "settings": settings,
    "settings-of": settings_of,
    "list": table,
    "restore": restore.run,
}


def main() -> int:
    """Do what the first word says and return the exit code."""
    command, *arguments = sys.argv[1:]
    try:
        if command == "now":
            return 0 if save.run() else 1
        COMMANDS[command](*arguments)
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    except (OSError, sqlite3.Error) as failed:
        print(f"{command} failed: {save.reason(failed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
