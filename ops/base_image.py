"""The image both Dockerfiles start from: present, pulled, or made from Debian's own packages."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from ops import stack
from ops.console import ROOT, Stop, quiet, step

PULL_SECONDS = 120
IMPORT_SECONDS = 300
# Debian's minbase is 120 MB unpacked; without what the official slim image leaves out it is 78 MB.
LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*"]
# Less than this is an archive that broke off, which docker would import without an error.
LEAST_BYTES = 40_000_000


def name() -> str:
    """Return the base image that compose.yaml names. Raises Stop with Compose's message if it cannot."""
    # Compose takes a seventh of a second to read it, at every verb; it is asked where a variable is in the name.
    if plain := re.search(r"^  BASE_IMAGE: ([^\s$]+)$", (ROOT / "compose.yaml").read_text(), re.MULTILINE):
        return plain[1]
    config = stack.config(["compose.yaml", stack.TRANSPORTS["tcp"]])
    return str(config["services"]["nginx"]["build"]["args"]["BASE_IMAGE"])


def names() -> set[str]:
    """Return the base images: the one of all images, and the one whose Python runs the project."""
    return {name(), stack.settings().python_image}


def ensure(image: str) -> None:
    """Make sure that `image` (debian:SUITE-slim) is on this machine.

    Raises Stop if it can neither be pulled nor made.
    """
    if quiet(["docker", "image", "inspect", "--format", "{{.Id}}", image]) is None:
        refresh(image)


def refresh(image: str) -> None:
    """Fetch `image` again, with the latest security updates. Raises Stop as `ensure` does."""
    print(f"Fetching the base image {image}")
    if quiet(["docker", "pull", "--quiet", image], seconds=PULL_SECONDS) is None:
        print("  no registry answers: making it from Debian's packages")
        make(image)


def make(image: str) -> None:
    """Bootstrap the same Debian with mmdebstrap and import it under the name `image`."""
    if shutil.which("mmdebstrap") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise Stop(
                f"{image} cannot be pulled, and mmdebstrap, which can make it, is not installed. Run:\n"
                "  sudo apt-get update && sudo apt-get install mmdebstrap"
            )
        step("Installing mmdebstrap", "apt-get update && apt-get install --yes --no-install-recommends mmdebstrap")
    suite = image.removeprefix("debian:").removesuffix("-slim")
    excludes = " ".join(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT)
    mirror = os.environ.get("APT_MIRROR", "")
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        step(
            f"Bootstrapping Debian {suite}",
            f"mmdebstrap --variant=minbase {excludes} --dpkgopt=path-include=/usr/share/doc/*/copyright "
            f"{suite} {archive} {mirror}",
        )
        if archive.stat().st_size < LEAST_BYTES:
            raise Stop(f"mmdebstrap made only {archive.stat().st_size} bytes. Is the disk full? See: df -h {folder}")
        stack.docker("import", "--change", 'CMD ["bash"]', str(archive), image, seconds=IMPORT_SECONDS)
