"""The logs of containers that are gone: Docker deletes them with the container, just when a fix has been deployed."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ops.console import ROOT
from ops.stack import Container

FOLDER = ROOT / "logs"
# Of all containers together; each has at most what Docker keeps of it (`logging` in compose.yaml), compressed.
KEPT = 20


def keep(containers: Sequence[Container], folder: Path = FOLDER) -> None:
    """Write down the logs of containers that are about to be removed. A full disk does not stop what removes them."""
    for container in containers:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            write(container, folder / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{container.name}.log.gz")
            for old in sorted(folder.glob("*.log.gz"))[:-KEPT]:
                old.unlink()
        except OSError as problem:
            print(f"    the log of {container.name} is not kept: {problem}")


def write(container: Container, file: Path) -> None:
    """Write the log of a container to a file, with times, as a whole or not at all."""
    new = file.with_suffix(".new")
    command = ["docker", "logs", "--timestamps", container.id]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as logs,
        gzip.open(new, "wb") as out,
    ):
        assert logs.stdout
        shutil.copyfileobj(logs.stdout, out)
    new.replace(file)


def kept(folder: Path = FOLDER) -> Iterator[tuple[str, str]]:
    """Return name and text of each log that was kept, the oldest first."""
    for file in sorted(folder.glob("*.log.gz")):
        with gzip.open(file, "rt", errors="replace") as text:
            yield file.name.removesuffix(".log.gz"), text.read()
