"""Put data that comes in on standard input into the volumes, and keep what it replaces: for `make bring-...`.

A database goes into the file that workers have open, by SQLite's backup: they see the old one or the new one.
"""

import contextlib
import shutil
import sqlite3
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from migrate import BACKUP, copied

MEDIA = Path("/data/media")
# Of copies that stay: those without it are removed after later migrations.
REPLACED = "replaced-"


def database(target: Path) -> None:
    """Replace the contents of an SQLite database, after a copy of it is made. Ends the process if that fails."""
    arrived = target.with_name(".arriving.sqlite3")
    try:
        with arrived.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        with contextlib.closing(sqlite3.connect(arrived)) as new:
            if new.execute("PRAGMA quick_check").fetchone() != ("ok",):
                sys.exit("The database did not arrive whole; nothing was changed")
            if target.exists() and target.stat().st_size:
                print(f"What was there before is in {copied(target, REPLACED)}")
            with contextlib.closing(sqlite3.connect(target, timeout=30)) as old:
                new.backup(old)
    except sqlite3.Error as problem:
        sys.exit(f"{target}: {problem}. What was there is as it was")
    finally:
        arrived.unlink(missing_ok=True)


def media(*, replace: bool) -> None:
    """Unpack uploads. Ends the process if some are there already and may not be replaced."""
    kept = BACKUP / datetime.now(UTC).strftime("media-%Y%m%d-%H%M%S-%f")
    # Python 3.11.2, which Debian 12 has, does not know this filter; the archive is the one that ops/bring.py has made.
    safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    count = 0
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            place = MEDIA / member.name
            if member.isfile() and place.exists():
                if not replace:
                    sys.exit(f"{place} is there already; {count} files before it were copied")
                (kept / member.name).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(place, kept / member.name)
            # nginx, another user, reads them.
            member.mode = 0o755 if member.isdir() else 0o644
            archive.extract(member, MEDIA, **safe)
            count += member.isfile()
    print(f"{count} files copied" + (f"; what they replaced is in {kept}" if kept.exists() else ""))


if __name__ == "__main__":
    if sys.argv[1] == "database":
        database(Path(sys.argv[2]))
    else:
        media(replace=sys.argv[2:] == ["replace"])
