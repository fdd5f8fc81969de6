"""What is in the images, which of it has an update, and the update: `make sbom`, `make outdated`, `make update`.

Runs in .venv, where uv and the CycloneDX library are.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from ops import base_image, releases, stack, state
from ops.console import ROOT, Stop

UV = Path(sys.executable).with_name("uv")
# For PYTHON_IMAGE, whichever it is
ANY_PYTHON = ("--universal", "--python-version", "3.11")
# The Python of the images, and the oldest one on which the test tools run.
LOCKS = {
    "app/requirements.in": ("--python-version", "3.13"),
    "uwsgi/build/requirements.in": ("--python-version", "3.13"),
    "uwsgi/build/exporters/uv/requirements.in": ANY_PYTHON,
    "uwsgi/build/exporters/poetry/requirements.in": ANY_PYTHON,
    "uwsgi/build/exporters/pdm/requirements.in": ANY_PYTHON,
    "uwsgi/build/exporters/pipenv/requirements.in": ANY_PYTHON,
    "uwsgi/development/requirements.in": ANY_PYTHON,
    "certificates/requirements.in": ("--python-version", "3.13"),
    "tools/bench/peers/requirements.in": ("--python-version", "3.13"),
    # tools/venv installs only what is listed (--no-deps). playwright would be 130 MB that no test uses.
    "tests/requirements.in": (
        "--universal",
        "--python-version",
        "3.11",
        *("--no-emit-package", "playwright", "--no-emit-package", "greenlet", "--no-emit-package", "pyee"),
    ),
}
# With hashes, and without the address of any mirror.
FORM = ("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links")
SERVICES = ("nginx", "uwsgi-socket", "uwsgi")
SBOM = ROOT / "sbom"
SECONDS = 300
DEBIAN = "${Package}\t${Version}\t${Architecture}\n"
PYTHON = "import importlib.metadata as m, json; print(json.dumps([[d.name, d.version] for d in m.distributions()]))"
# Inst openssl [3.5.1-1] (3.5.1-1+deb13u1 Debian-Security:13/stable-security [amd64])
UPGRADE = re.compile(r"^Inst (\S+) \[(\S+)\] \((\S+)", re.MULTILINE)


def main() -> int:
    """Run one command and return the exit code."""
    verbs: dict[str, Callable[[], None]] = {"sbom": sbom, "outdated": outdated, "update": update}
    try:
        verbs[sys.argv[1]]()
    except Stop as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 1
    return 0


def sbom() -> None:
    """Write the contents of each running image to sbom/SERVICE.cdx.json. Raises Stop if the stack is not running."""
    SBOM.mkdir(exist_ok=True)
    for service, image in images().items():
        found = contents(image)
        document = SBOM / f"{service}.cdx.json"
        document.write_text(JsonV1Dot6(bill(service, found)).output_as_string(indent=2) + "\n")
        print(f"{document.relative_to(ROOT)}: {len(found)} packages")


def images() -> dict[str, str]:
    """Return the image of each service that has its own. Raises Stop if the stack is not running."""
    found = {service: stack.workers(service)[0].image for service in SERVICES}
    return found | {container.service: container.image for container in stack.containers(stack.CERTIFICATES)}


def contents(image: str) -> list[PackageURL]:
    """Return every package of an image: Debian's, the project's, and uWSGI, which is only a program."""
    lines = inside(image, "dpkg-query", "--show", "--showformat", DEBIAN).splitlines()
    found = [
        PackageURL("deb", "debian", name, version, {"arch": architecture})
        for name, version, architecture in (line.split("\t") for line in lines)
    ]
    if server := inside(image, "sh", "-c", "! command -v uwsgi >/dev/null || uwsgi --version").strip():
        found.append(PackageURL("pypi", name="uwsgi", version=server))
    if installed := inside(image, "sh", "-c", f"[ ! -d /venv ] || /venv/bin/python -c {json.dumps(PYTHON)}").strip():
        found += [PackageURL("pypi", name=name.lower(), version=version) for name, version in json.loads(installed)]
    return found


def inside(image: str, *command: str, options: Sequence[str] = ("--network", "none")) -> str:
    """Return what a command prints in a new container of this image."""
    return stack.docker("run", "--rm", *options, "--entrypoint", command[0], image, *command[1:], seconds=SECONDS)


def bill(service: str, found: Sequence[PackageURL]) -> Bom:
    """Return the bill of materials of one image."""
    made = Bom()
    image = made.metadata.component = Component(name=service, bom_ref=service, type=ComponentType.CONTAINER)
    parts = [
        Component(name=one.name, version=one.version, purl=one, bom_ref=str(one), type=ComponentType.LIBRARY)
        for one in found
    ]
    made.components.update(parts)
    made.register_dependency(image, parts)
    return made


def outdated() -> None:
    """Print which locked Python packages and which Debian packages of the running images have a newer version."""
    rows = [(file, *row) for file in locked() for row in newer(file, compiled(file))]
    for service, image in images().items():
        result = inside(image, "sh", "-c", "apt-get -qq update && apt-get --simulate upgrade", options=("--user", "0"))
        rows += [(f"{service} image", *row) for row in UPGRADE.findall(result)]
    for where, name, old, new in rows:
        print(f"{where:<24} {name:<28} {old:<24} {new}")
    print(f"{len(rows)} updates. To take them: make update" if rows else "Everything is up to date.")


def locked() -> list[str]:
    """Return the requirement files that are there; a project of your own may be locked by other means."""
    return [file for file in LOCKS if (ROOT / file).is_file()]


def newer(file: str, lock: str) -> list[tuple[str, str, str]]:
    """Return name, locked and newest version of each package that a newer lock would change."""
    now, then = versions(lock_of(file).read_text()), versions(lock)
    return [(name, now.get(name, "-"), version) for name, version in then.items() if now.get(name) != version]


def lock_of(file: str) -> Path:
    """Return the lock that is made from a requirements.in."""
    return (ROOT / file).with_suffix(".txt")


def versions(lock: str) -> dict[str, str]:
    """Return the packages of a lock."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE))


def compiled(file: str) -> str:
    """Return the newest lock of one requirements.in. Raises Stop with uv's message if there is none."""
    command = [str(UV), "pip", "compile", "--quiet", "--upgrade", *LOCKS[file], *FORM, file]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=SECONDS)
    if done.returncode != 0:
        raise Stop(f"{done.stderr.strip()}\n{file} cannot be locked (above). Nothing was changed.")
    return done.stdout


def relock() -> None:
    """Write the newest lock of every requirements.in, all or none."""
    newest = {file: compiled(file) for file in locked()}
    for file, lock in newest.items():
        for name, old, new in newer(file, lock):
            print(f"{lock_of(file).relative_to(ROOT)}: {name} {old} -> {new}")
        if lock != lock_of(file).read_text():
            lock_of(file).write_text(lock)


def update() -> None:
    """Lock the newest Python packages, with hashes, fetch a fresh base image and rebuild all images.

    What runs is not touched. Raises Stop before anything is written if a lock cannot be made.
    """
    relock()
    for image in base_image.names():
        base_image.refresh(image)
    stack.build(state.current_files(), "--no-cache", release=releases.NEXT)
    print("\nBuilt, not yet running. Test it: make test. Then make up interrupts the site for about two seconds")


if __name__ == "__main__":
    sys.exit(main())
