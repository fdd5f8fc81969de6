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
# After a start, if the last good backup is older: the machine was off at BACKUP_AT, or there is none yet
OLD_SECONDS = 86_400
FORM = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def due(tried: float, good: float, result: str, at: str, now: float) -> bool:
    """Return whether a backup should be made now; `tried` and `good` are when the last ones were, 0 if never."""
    if now - good > OLD_SECONDS + AGAIN_SECONDS or result not in ("", "good"):
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
    while True:
        last = save.last()
        if SETTINGS.is_dir() and due(
            last.get("tried", 0), last.get("good", 0), last.get("result", ""), at, time.time()
        ):
            save.run()
        time.sleep(LOOK_SECONDS)
