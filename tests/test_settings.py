"""A setting lives in one place, and what is written about it is true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import doctor, preflight, proof, stack
from ops.__main__ import parser
from ops.console import Stop
from tests.support.checkout import Checkout
from tests.support.stack import ROOT, run

PAGES = (ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md"))
COMPOSE_FILES = sorted([*ROOT.glob("compose*.yaml"), *ROOT.glob("overrides/*.yaml")])
# What a file in overrides/ takes from elsewhere
EXTENDED = [ROOT / "certificates/service.yaml"]
# Read from the user's shell, not from .env: they belong to her machine.
OF_THE_MACHINE = {
    "DEV_UID",
    "DEV_GID",
    "SSL_CERT_FILE",
    "APT_MIRROR",
    "PIP_INDEX_URL",
    "COMPOSE_PROJECT_NAME",
    "RELEASE",
}


def example() -> dict[str, str]:
    """Return the settings of .env.example."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def defaults() -> dict[str, set[str]]:
    """Return each variable of the compose files with the defaults they give it."""
    found: dict[str, set[str]] = {}
    for file in [*COMPOSE_FILES, *EXTENDED]:
        for name, default in re.findall(r"\$\{([A-Z_]+)(?::-([^}]*))?\}", file.read_text()):
            found.setdefault(name, set()).add(default)
    return found


def base() -> dict[str, Any]:
    """Return compose.yaml as it is written."""
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text())["services"])


def test_env_example_has_every_setting_with_its_default() -> None:
    documented = example()
    documented.pop("COMPOSE_FILE")
    used = {name: values for name, values in defaults().items() if name not in OF_THE_MACHINE}
    assert {name: {value} for name, value in documented.items()} == used


def test_every_setting_says_what_it_does() -> None:
    for block in (ROOT / ".env.example").read_text().split("\n\n"):
        assert block.startswith("# "), f"no comment above: {block.splitlines()[0]}"


@pytest.mark.needs_sample
def test_sample_project_reads_every_setting_it_is_given() -> None:
    code = (ROOT / "app/config/settings.py").read_text()
    given = base()["uwsgi"]["environment"]
    names = [name for name in given if given[name] and not name.startswith("UWSGI_")]
    assert [name for name in names if name not in code] == []


@pytest.mark.needs_sample
def test_settings_of_the_sample_alone_are_documented() -> None:
    code = (ROOT / "app/config/settings.py").read_text()
    own = set(re.findall(r'"(DJANGO_[A-Z_]+)"', code)) - {*base()["uwsgi"]["environment"]}
    assert own == {"DJANGO_STACK_PAGE", "DJANGO_LOG_FORMAT", "DJANGO_LOG_LEVEL"}
    page = (ROOT / "docs/bring-your-app.md").read_text()
    assert {name for name in own if f"`{name}" not in page} == set()


def test_preflight_knows_what_the_stack_sets_for_every_project() -> None:
    """What any compose file of a transport, or of a service that runs the project, sets; and what the image does."""
    set_by_compose = {
        name
        for file in (ROOT / "compose.yaml", *map(ROOT.joinpath, stack.TRANSPORTS.values()))
        for service in ("uwsgi", "release")
        for name in yaml.safe_load(file.read_text())["services"].get(service, {}).get("environment", {})
    }
    assert "TRANSPORT" in set_by_compose
    assert {*set_by_compose, "STATIC_ROOT", "PROJECT_MODULE"} == preflight.SET_BY_THE_STACK
    # Only what .env can set may be moved there.
    assert preflight.SET_BY_THE_STACK - settings_of_env() == preflight.NOT_IN_ENV


def settings_of_env() -> set[str]:
    """Return every name that the compose files take from .env."""
    passed_on = {name for name, value in base()["uwsgi"]["environment"].items() if value is None}
    return {*defaults(), *passed_on}


def seconds(duration: str) -> int:
    """Return the seconds of a duration as Compose writes it, such as 1h2m3s."""
    return sum(
        int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([hms])", duration)
    )


def composed(**settings: str) -> dict[str, Any]:
    """Return the services as Compose reads them with these settings in .env."""
    files = ("--file", "compose.yaml", "--file", "compose.tcp.yaml")
    done = run(
        *("docker", "compose", "--env-file", "/dev/null", *files, "config", "--format", "json"),
        environment={"PROJECT_ENV": "/dev/null", **settings},
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["services"])


def written_by_the_entrypoint(folder: Path, environment: dict[str, str]) -> str:
    """Return what nginx's entrypoint writes for nginx to include."""
    script = folder / "entrypoint"
    script.write_text((ROOT / "nginx/entrypoint").read_text().replace("/run/nginx", str(folder)))
    done = run("sh", str(script), "true", environment=environment)
    assert done.returncode == 0, done.stderr
    return "\n".join(file.read_text() for file in folder.glob("*.conf"))


def shipped(folder: Path, **settings: str) -> doctor.Facts:
    """Return the numbers of the files, with these settings, as make doctor reads them of a running stack."""
    nginx = [file for file in (ROOT / "nginx").rglob("*.conf") if file.parent.name != "development"]
    services = composed(**settings)
    written = written_by_the_entrypoint(folder, services["nginx"]["environment"])
    environment = [f"{name}={value}" for name, value in services["uwsgi"]["environment"].items()]
    return doctor.Facts(
        nginx=doctor.directives("\n".join([*(file.read_text() for file in nginx), written])),
        uwsgi=doctor.in_force(environment, (ROOT / "uwsgi/uwsgi.ini").read_text()),
        grace={name: seconds(services[name]["stop_grace_period"]) for name in ("nginx", "uwsgi")},
        queues={
            name: (
                int(doctor.ini((ROOT / f"sockets/{name}.ini").read_text())["listen"]),
                int(services[name]["sysctls"]["net.core.somaxconn"]),
            )
            for name in ("nginx-socket", "uwsgi-socket")
        },
        descriptors=base()["nginx"]["ulimits"]["nofile"],
    )


@pytest.mark.parametrize("request_seconds", ["", "1", "30", "3600"])
def test_doctor_finds_nothing_in_the_shipped_numbers(tmp_path: Path, request_seconds: str) -> None:
    """Timeouts contain each other, buffers fit, the kernel allows the queue: the rules are in ops/doctor.py."""
    facts = shipped(tmp_path, REQUEST_SECONDS=request_seconds)
    assert facts.uwsgi["harakiri"] == (request_seconds or "30")
    assert doctor.examine(facts) == []


def test_uploads_have_one_limit(tmp_path: Path) -> None:
    assert shipped(tmp_path, UPLOAD_MAX="200m").nginx["client_max_body_size"] == "200m"


@pytest.mark.needs_sample
def test_a_locked_database_gives_up_before_the_worker_is_killed(tmp_path: Path) -> None:
    sqlite = re.search(r'"timeout": (\d+)', (ROOT / "app/config/settings.py").read_text())
    assert sqlite
    assert int(sqlite[1]) < int(shipped(tmp_path).uwsgi["harakiri"])


def test_nginx_has_time_to_drain_and_to_finish(tmp_path: Path) -> None:
    drain = re.search(r"drain_seconds = (\d+);", (ROOT / "nginx/run-nginx.c").read_text())
    assert drain
    facts = shipped(tmp_path)
    assert int(drain[1]) + doctor.seconds(facts.nginx["worker_shutdown_timeout"]) < facts.grace["nginx"]


def test_the_queue_of_the_published_port_is_within_what_the_kernel_allows() -> None:
    listen = int(doctor.ini((ROOT / "sockets/nginx-socket.ini").read_text())["listen"])
    assert listen <= base()["nginx-socket"]["sysctls"]["net.core.somaxconn"]


def test_base_alone_is_refused_by_name() -> None:
    done = run("docker", "compose", "--env-file", "/dev/null", "--file", "compose.yaml", "config", "--quiet")
    assert done.returncode != 0
    # Compose names one of the two that lack it, now this, now that.
    assert re.search(r'service "(nginx|uwsgi-socket)" refers to undefined config \1-transport', done.stderr)


def test_overrides_stay_small_and_undo_nothing() -> None:
    for file in COMPOSE_FILES:
        if file.name != "compose.yaml":
            assert len(file.read_text().splitlines()) <= 40, file.name
            # Its purpose is to have nginx-socket leave its network.
            resets = ["networks: !reset []", "ports: !reset []", "sysctls: !reset {}"]
            resets *= file.name == "host-network.yaml"
            found = [line.strip() for line in file.read_text().splitlines() if "!reset" in line]
            assert found == resets, file.name
            assert "!override" not in file.read_text(), file.name


def test_each_transport_is_three_files_of_one_name() -> None:
    names = {
        "compose": {file.name.removeprefix("compose.").removesuffix(".yaml") for file in COMPOSE_FILES},
        "nginx": {file.stem for file in (ROOT / "nginx/transports").iterdir()},
        "sockets": {file.stem for file in (ROOT / "sockets/transports").iterdir()},
    }
    assert names["nginx"] == names["sockets"] == {"tcp", "unix-socket"} <= names["compose"]


def test_no_file_names_a_registry() -> None:
    hosts = re.compile(r"(docker\.io/|ghcr\.io|quay\.io|registry-1\.|pypi\.org|pythonhosted|deb\.debian\.org)")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.split()
    guilty = [
        name
        for name in listed
        if name != "tests/test_settings.py"
        and (ROOT / name).is_file()
        and hosts.search((ROOT / name).read_text(errors="replace"))
    ]
    assert guilty == []


def shown_by(*command: str) -> list[str]:
    """Return the verbs that a form of make help lists."""
    return re.findall(r"^  make ([a-z-]+) ", run("make", *command).stdout, re.MULTILINE)


def test_every_verb_is_in_the_help_and_in_the_readme() -> None:
    verbs = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(shown_by("help", "ALL=1")) == verbs
    pages = "\n".join(file.read_text() for file in PAGES)
    assert verbs - {"help"} - set(re.findall(r"make ([a-z-]+)", pages)) == set()
    unknown = set(re.findall(r"`make ([a-z-]+)", pages)) - verbs
    assert unknown == set()


def test_make_alone_lists_what_is_typed_every_day() -> None:
    assert 8 <= len(shown_by()) <= 12
    assert {"up", "stop", "deploy", "status", "logs", "manage"} < set(shown_by()) < set(shown_by("help", "ALL=1"))
    assert "make help ALL=1 lists the rest" in run("make").stdout


def test_env_is_read_as_compose_reads_it(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, "settings")
    line = 'export COMPOSE_FILE="compose.yaml:compose.unix-socket.yaml" # and a comment\n'
    (checkout.folder / ".env").write_text(line)
    done = run("ops/run", "files", cwd=checkout.folder, environment=checkout.environment)
    assert done.stdout == "compose.yaml:compose.unix-socket.yaml\n", done.stderr


def test_ops_refuses_a_transport_it_does_not_know() -> None:
    done = run("python3", "-m", "ops", "up", "pigeon")
    assert done.returncode == 2
    assert "invalid choice: 'pigeon' (choose from" in done.stderr
    assert parser().prog == "ops/run"


def test_map_in_the_readme_is_true() -> None:
    readme = (ROOT / "README.md").read_text()
    drawn = re.findall(r"^([a-z]+)/ ", readme, re.MULTILINE)
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.split()
    assert set(drawn) == {name.split("/")[0] for name in listed if "/" in name and not name.startswith(".")}


def test_links_in_the_documentation_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that a reader of the repository gets for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_to_a_heading_lead_to_one() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            assert anchor in anchors(page.parent / target if target else page), f"{page.name}: {target}#{anchor}"


def test_every_override_is_documented() -> None:
    pages = "\n".join(file.read_text() for file in PAGES)
    assert [file.name for file in COMPOSE_FILES if file.name not in pages] == []


def test_every_test_that_security_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text()))
    assert {name for name in named if not (ROOT / f"tests/{name}.py").is_file()} == set()


def test_a_project_that_starts_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker, Compose and every wait of ours follow START_SECONDS."""
    monkeypatch.setenv("START_SECONDS", "150")
    waited: list[float] = []

    def wait(*_: object, seconds: float, **__: object) -> str:
        waited.append(seconds)
        return ""

    monkeypatch.setattr(stack, "run_once", wait)
    monkeypatch.setattr(stack, "wait_healthy", wait)
    proof.project([], "next")
    stack.wait_for_new([])
    assert waited == [proof.CHECK_SECONDS + 3 * 90, stack.HEALTHY_SECONDS + 90]
    services = stack.config(["compose.yaml", "compose.tcp.yaml"])["services"]
    assert {services[name]["healthcheck"]["start_period"] for name in ("uwsgi", "nginx")} == {"2m30s"}
    monkeypatch.setenv("START_SECONDS", "long")
    with pytest.raises(Stop, match=r"Fix \.env"):
        stack.settings()
