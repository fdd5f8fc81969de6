"""The service: waits until BACKUP_AT (UTC), makes a backup, and waits again.

One process with a clock of its own: cron has no environment, and its mail is not read. Whether backups are made is seen
by their age, in `make doctor` and `make status`, and not by whether this runs.
"""

import datetime
import os
import re
import signal
import sys
import time

from backup import save
from backup.places import SETTINGS

# A machine that slept or whose clock was set must not wait for hours more.
LOOK_SECONDS = 20
# After a run that failed
AGAIN_SECONDS = 3600
FORM = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def due(tried: float, result: str, at: str, now: float) -> bool:
    """Return whether a backup should be made now; `tried` is when the last run began, 0 if there was none.

    A suspect one is tried again the next day: the data will not be better in an hour, and each is kept.
    """
    if result in ("failed", save.UNFINISHED):
        return now - tried > AGAIN_SECONDS
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    hour, minute = map(int, at.split(":"))
    latest = moment.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if latest > moment:
        latest -= datetime.timedelta(days=1)
    return tried < latest.timestamp()


def main() -> None:
    """Back up at BACKUP_AT, for as long as the container runs."""
    at = os.environ.get("BACKUP_AT", "")
    if not FORM.fullmatch(at):
        sys.exit(f"BACKUP_AT is {at!r}, not an hour and a minute. Set it in .env: BACKUP_AT=03:17")
    # Process 1 gets no default handlers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"Backups are made at {at} UTC", flush=True)
    failed = 0.0
    while True:
        failed = look(at, failed)
        time.sleep(LOOK_SECONDS)


def look(at: str, failed: float) -> float:
    """Make a backup if one is due. Returns when one failed last: on a full disk, it cannot write that down."""
    last, now = save.last(), time.time()
    runs = [(last.get("tried", 0), last.get("result", "")), (failed, "failed")]
    # One in the future was made while the clock was wrong.
    tried, result = max((run for run in runs if run[0] <= now), default=(0, ""))
    if not SETTINGS.is_dir() or not due(tried, result, at, now):
        return failed
    return 0 if save.run() else now
