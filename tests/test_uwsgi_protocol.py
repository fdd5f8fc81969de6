"""The uwsgi protocol can run any command: only nginx reaches it, and a hand-made packet runs nothing."""

from __future__ import annotations

import json
import struct

import pytest

from tests.support.stack import Stack, run

# The file that the commands below would make in the container that carries them out.
WITNESS = "/tmp/was-here"
MAKE_WITNESS = f"exec://touch {WITNESS}"
CODE = f"open({WITNESS!r}, 'w').close()\ndef application(e, s): s('200 OK', []); return [b'taken over']\n"

# Takes places, separated by commas, and a packet in hexadecimal; prints what came back. Runs in a container of its own.
CLIENT = """
import json, socket, struct, sys
packet = bytes.fromhex(sys.argv[2])
for place in sys.argv[1].split(","):
    try:
        if place.startswith("/"):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(5)
            connection.connect(place)
        else:
            connection = socket.create_connection((place, 20001), timeout=3)
    except OSError as problem:
        print("no connection:", problem)
        continue
    connection.settimeout(10)
    connection.sendall(packet)
    answer = b""
    try:
        while chunk := connection.recv(65536):
            answer += chunk
    except OSError:
        pass
    print(answer.decode("latin-1") or "closed")
"""


def packet(extra: dict[str, str], modifier: int = 0) -> bytes:
    """Return a request by the uwsgi protocol, as nginx would send it, with `extra` variables."""
    variables = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/echo",
        "PATH_INFO": "/echo",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8080",
        "HTTP_HOST": "localhost",
        "REMOTE_ADDR": "192.0.2.1",
        **extra,
    }
    body = b"".join(
        struct.pack("<H", len(text.encode())) + text.encode() for pair in variables.items() for text in pair
    )
    return struct.pack("<BHB", modifier, len(body), 0) + body


def third_container(stack: Stack, place: str, sent: bytes, *options: str) -> str:
    """Send a packet from a container outside of the stack and return the answer."""
    image = stack.container("uwsgi")["Config"]["Image"]
    command = ("--entrypoint", "python3", image, "-c", CLIENT, place, sent.hex())
    done = run("docker", "run", "--rm", *options, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def addresses(stack: Stack, service: str) -> list[str]:
    """Return the addresses of a container."""
    networks = stack.container(service)["NetworkSettings"]["Networks"]
    return [one["IPAddress"] for one in networks.values() if one["IPAddress"]]


@pytest.mark.parametrize(
    "network", ["edge", *(pytest.param(name, marks=pytest.mark.slow) for name in ("inside", None))]
)
def test_a_third_container_does_not_reach_it(stack: Stack, network: str | None) -> None:
    """C11, from every network there is but the wire, by address and by name."""
    joined = ("--network", f"{stack.project}_{network}") if network else ()
    places = [*addresses(stack, "uwsgi-socket"), *addresses(stack, "uwsgi"), "uwsgi-socket", "uwsgi"]
    answers = third_container(stack, ",".join(places), packet({}), *joined).splitlines()
    assert [answer.startswith("no connection") for answer in answers] == [True] * len(places), answers


@pytest.fixture
def wire(stack: Stack) -> tuple[str, tuple[str, ...]]:
    """How a container that was let onto the wire connects: the place, and the options that let it."""
    if stack.transport == "tcp":
        return "uwsgi-socket", ("--network", f"{stack.project}_wire")
    mounted = f"{stack.project}_wire:/run/wire"
    return "/run/wire/uwsgi.sock", ("--network", "none", "--group-add", "10000", "--volume", mounted)


def witness(stack: Stack) -> bool:
    """Return whether a command was carried out."""
    return run("docker", "exec", stack.container("uwsgi")["Id"], "test", "-e", WITNESS).returncode == 0


def test_the_wire_itself_is_served(stack: Stack, wire: tuple[str, tuple[str, ...]]) -> None:
    """Otherwise the tests below would pass because nothing connects."""
    place, joined = wire
    answer = third_container(stack, place, packet({}), *joined)
    assert answer.startswith("HTTP/1.1 200 OK")
    assert json.loads(answer.partition("\n\n")[2])["path"] == "/echo"


COMMANDS = {
    "a command": {"UWSGI_FILE": MAKE_WITNESS},
    "a command as another app": {"UWSGI_FILE": MAKE_WITNESS, "UWSGI_APPID": "other"},
    "a file": {"UWSGI_FILE": "/tmp/planted.py", "UWSGI_APPID": "file"},
    "a script": {"UWSGI_SCRIPT": "planted", "UWSGI_APPID": "script", "UWSGI_CHDIR": "/tmp"},
    "a module": {"UWSGI_MODULE": "planted", "UWSGI_APPID": "module", "UWSGI_CHDIR": "/tmp", "UWSGI_PYHOME": "/tmp"},
    "a callable": {"UWSGI_CALLABLE": "planted:application", "UWSGI_APPID": "callable"},
    "a secret as the body": {"UWSGI_POSTFILE": "/run/secrets/django_secret_key", "CONTENT_LENGTH": "64"},
    "a variable": {"UWSGI_SETENV": "LD_PRELOAD=/tmp/planted.so"},
    "a file to watch": {"UWSGI_TOUCH_RELOAD": "/tmp/planted.py"},
    "a home": {"UWSGI_HOME": "/tmp"},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "a command")) for name in COMMANDS]
)
def test_a_packet_by_hand_runs_nothing(stack: Stack, wire: tuple[str, tuple[str, ...]], name: str) -> None:
    """C11, the second line: anything that gets onto the wire is refused, and no worker obeys it."""
    place, joined = wire
    stack.exec("uwsgi", "sh", "-c", f"printf %s {json.dumps(CODE)} >/tmp/planted.py")
    answers = {third_container(stack, place, packet(COMMANDS[name]), *joined) for _ in range(3)}
    assert {answer.split("\n")[0] for answer in answers} == {"HTTP/1.1 403 Forbidden"}
    assert not any("taken over" in answer for answer in answers)
    assert not witness(stack)


@pytest.mark.slow
def test_no_modifier_reaches_more_than_the_project(stack: Stack, wire: tuple[str, tuple[str, ...]]) -> None:
    """The first byte of a packet chooses a plugin; of those that are compiled in, only Python answers."""
    place, joined = wire
    before = stack.processes("uwsgi")
    for modifier in (1, 5, 9, 17, 18, 22, 26, 27, 28, 30, 31, 98, 99, 110, 111, 173, 200, 224, 250, 255):
        answer = third_container(stack, place, packet({"UWSGI_FILE": MAKE_WITNESS}, modifier), *joined)
        assert "taken over" not in answer
        assert not answer.startswith("HTTP/1.1 200"), (modifier, answer)
    assert not witness(stack)
    assert stack.processes("uwsgi") == before
    assert stack.serves()


def test_a_client_of_nginx_cannot_send_such_variables(stack: Stack) -> None:
    names = {name for variables in COMMANDS.values() for name in variables if name.startswith("UWSGI_")}
    meta = stack.get("/echo", headers=dict.fromkeys(names, "/tmp/planted.py")).json()["meta"]
    assert not names & set(meta)
