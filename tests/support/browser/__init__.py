"""A real browser in a container on this machine's network, driven from here; closed again at the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import ChromeOptions, Remote

from ops import base_image
from tests.support.stack import CHECKOUT, ROOT, free_port, run, wait_until

# Chromium would look for updates and accounts at its maker's, at every start.
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
BUILD_SECONDS = 600


@contextmanager
def browser() -> Iterator[Remote]:
    """Yield a headless chromium that records what its console says."""
    image = f"test-{CHECKOUT}-browser"
    arguments = ["--build-arg", f"BASE_IMAGE={base_image.name()}", "--build-arg", "APT_MIRROR"]
    built = run(
        "docker", "build", "--tag", image, *arguments, str(ROOT / "tests/support/browser"), seconds=BUILD_SECONDS
    )
    assert built.returncode == 0, built.stderr
    port, name = free_port(), f"{image}-{os.getpid()}"
    # Its own sandbox needs rights that a container does not have; the container is the sandbox.
    limits = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "1g", "--shm-size", "256m"]
    # Chromium drops what it loads when it sees a changed network, as when another test makes one: it may not see any.
    limits += ["--security-opt", f"seccomp={ROOT}/tests/support/browser/no-netlink.json"]
    options = ["--rm", "--network", "host", "--name", name, *limits]
    with subprocess.Popen(["docker", "run", *options, image, "chromedriver", f"--port={port}"]) as running:
        try:
            settings = ChromeOptions()
            for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", *QUIET):
                settings.add_argument(argument)
            settings.set_capability("goog:loggingPrefs", {"browser": "ALL"})
            address = f"http://127.0.0.1:{port}"
            driver = wait_until(lambda: connected(address, settings), "chromedriver answers", 30)
            try:
                yield driver
            finally:
                driver.quit()
        finally:
            run("docker", "rm", "--force", name)
            running.wait(20)


def connected(address: str, settings: ChromeOptions) -> Remote:
    """Return a session of the driver. Raises OSError while it does not answer."""
    try:
        return Remote(address, options=settings)
    except Exception as problem:  # urllib3's, of many kinds, while nothing listens yet
        raise OSError(str(problem)) from problem


def console(driver: Remote) -> list[str]:
    """Return what the console has said since it was last asked, a violated Content-Security-Policy included."""
    return [f"{entry['level']}: {entry['message']}" for entry in driver.execute("getLog", {"type": "browser"})["value"]]
