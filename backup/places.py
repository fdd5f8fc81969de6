"""Where things are in the container, which has the volumes and `backups/`, and what is no part of a backup."""

from pathlib import Path

DATA = Path("/data")
# Of each volume: what is no part of a backup, and stays where it is. `.backup` is ours: what is being restored, and
# what a restore has replaced. `backup` has the copies that migrations make, `lost+found` is the file system's.
VOLUMES = {
    DATA: {".backup", "backup", "lost+found", "media", "private"},
    DATA / "media": {".backup", "lost+found"},
    DATA / "private": {".backup", "lost+found"},
}
# In each of them, so that a rename is enough: what is being restored; what restores have replaced, by the time (UTC);
# and the list of renames that have begun
WORK = ".backup"
RESTORING = "restoring"
REPLACED = "replaced-"
REPLACED_FORM = "%Y%m%d-%H%M%S"
JOURNAL = DATA / WORK / "swap.json"
# A volume of our own: settings that a verb of `make` has handed over, and the copies of databases while a run lasts
STAGING = Path("/staging")
SETTINGS = STAGING / "settings"
SNAPSHOT = STAGING / "snapshot"
COPIES = SNAPSHOT / "databases"
# On the disk of the machine, next to the checkout: `make clean` does not reach it
BACKUPS = Path("/backups")
REPOSITORY = BACKUPS / "repository"
LAST = BACKUPS / "last.json"


class Failed(Exception):
    """It cannot go on. The text says what is wrong and what to do."""
