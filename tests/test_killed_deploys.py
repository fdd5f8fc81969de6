"""What is killed, in whichever step, is ended by the next verb, and no request is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.site import Site
from tests.support.stack import wait_until


@dataclass(frozen=True)
class Step:
    """A step of a deploy: the line that the step before it prints, and what can be seen once it is under way."""

    name: str
    after: str
    under_way: Callable[[Site], bool]


def written_just_now(site: Site) -> bool:
    """Return whether the state was written a moment ago: the new release serves, the old is told to go."""
    return time.time() - (site.folder / f".{site.project}.state.json").stat().st_mtime < 1


STEPS = (
    Step("build", "", lambda site: bool(list(site.folder.glob(".*.lock")))),
    Step("check", "build ", lambda site: bool(site.one_off())),
    Step("release", "check ", lambda site: bool(site.one_off())),
    Step("trial", "release ", lambda site: bool(site.one_off())),
)
START = Step("start", "trial", lambda site: len(site.uwsgi()) > 1)
RETIREMENT = Step("retirement", "start of", written_just_now)


def killed(site: Site, step: Step) -> None:
    """Kill a deploy within a step."""
    deploy = site.under_way("deploy")
    assert deploy.stdout is not None
    for line in deploy.stdout if step.after else ():
        if line.strip().startswith(step.after):
            break
    wait_until(lambda: step.under_way(site), f"{step.name} is under way", 60)
    kill(deploy)
    assert site.uwsgi() != []


def kill(verb: subprocess.Popen[str]) -> None:
    """Kill a verb and all that it has started, while it is under way."""
    assert verb.poll() is None, "it was over before it could be killed"
    os.killpg(verb.pid, signal.SIGKILL)
    verb.wait(10)


def killed_and_ended(site: Site, step: Step) -> None:
    """Kill a deploy within a step, and deploy again."""
    site.change(f"killed in {step.name}")
    with site.load() as load:
        killed(site, step)
        site.made("deploy")
    assert load.lost() == []
    assert site.version() == f"killed in {step.name}"
    assert len(site.uwsgi()) == 1
    assert len(site.containers("uwsgi")) == 1


@pytest.mark.slow_on_tcp
def test_killed_while_the_new_containers_start(site: Site) -> None:
    killed_and_ended(site, START)


@pytest.mark.slow
@pytest.mark.one_transport
@pytest.mark.parametrize("step", [*STEPS, RETIREMENT], ids=lambda step: step.name)
def test_killed_in_any_other_step(site: Site, step: Step) -> None:
    killed_and_ended(site, step)


@pytest.mark.slow
@pytest.mark.one_transport
@pytest.mark.parametrize(
    ("step", "verb"),
    [
        (STEPS[2], "up"),
        (START, "up"),
        (START, "scale N=2"),
        (START, "rollback"),
        (RETIREMENT, "rollback"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_killed_in_a_step_and_another_verb_typed(site: Site, step: Step, verb: str) -> None:
    before = site.version()
    site.change(f"killed in {step.name}, then {verb}")
    with site.load() as load:
        killed(site, step)
        site.made(*verb.split())
    assert load.lost() == []
    # What a killed deploy had not proven does not serve.
    new = f"killed in {step.name}, then {verb}"
    assert {site.version() for _ in range(10)} == {new if verb == "up" else before}
    wanted = 2 if verb == "scale N=2" else 1
    assert (len(site.uwsgi()), len(site.containers("uwsgi"))) == (wanted, wanted)
    site.made("scale", "N=1")
    site.made("up")


@pytest.mark.slow
@pytest.mark.one_transport
def test_a_change_of_transport_that_is_killed_is_ended_by_any_verb(site: Site) -> None:
    """Both generations of nginx run then, and only one of them has a uwsgi behind it that stays."""
    other = "up-unix" if site.transport == "tcp" else "up-tcp"
    site.change("killed in a change of transport")
    with site.load() as load:
        change = site.under_way(other)
        wait_until(lambda: len(site.running("nginx")) > 1, "two nginx run", 60)
        kill(change)
        site.made("deploy")
    assert load.lost() == []
    assert {site.version() for _ in range(10)} == {"killed in a change of transport"}
    assert site.serves_over() == site.transport
    assert {service: len(site.containers(service)) for service in ("nginx", "uwsgi", "uwsgi-socket")} == {
        "nginx": 1,
        "uwsgi": 1,
        "uwsgi-socket": 1,
    }
