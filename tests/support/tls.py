"""A client of https that trusts no one and sees everything: names, sessions, HTTP/2 streams, single messages."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator, Sequence

import h2.connection
import h2.events

from tests.support.stack import Stack

# IANA's numbers
X25519MLKEM768 = 0x11EC
X25519 = 0x001D
HANDSHAKE = 22
SERVER_HELLO = 2
SUPPORTED_VERSIONS, KEY_SHARE = 43, 51

# In the container of `certificates`: new certificates with the same key, or each with a new one, five a second
SWAP = """
import sys, time; sys.path.insert(0, "/usr/local/bin")
from certificates import *
for _ in range(int(sys.argv[1])):
    current = served()
    key = ec.generate_private_key(ec.SECP256R1()) if sys.argv[2] == "new-keys" else current.key
    publish(self_signed(current.names(), time.time(), key))
    time.sleep(0.2)
"""


def context(*protocols: str) -> ssl.SSLContext:
    """Return a context that trusts any certificate and offers these protocols by ALPN."""
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_ciphers("ALL:@SECLEVEL=0")
    if protocols:
        made.set_alpn_protocols(protocols)
    return made


def connect(
    stack: Stack, name: str | None = "localhost", with_: ssl.SSLContext | None = None, session: object = None
) -> ssl.SSLSocket:
    """Return a connection over TLS under a name, None for none. Raises ssl.SSLError if the handshake is refused."""
    plain = socket.create_connection(("127.0.0.1", stack.https_port), timeout=20)
    try:
        return (with_ or context()).wrap_socket(plain, server_hostname=name, session=session)  # type: ignore[arg-type]
    except BaseException:
        plain.close()
        raise


def ask(stack: Stack, sent: bytes, name: str | None = "localhost") -> bytes:
    """Return all that is answered to these bytes until the connection closes."""
    with connect(stack, name) as connection:
        connection.sendall(sent)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
        return answer


def get(path: str, *headers: str, host: str = "localhost", method: str = "GET") -> bytes:
    """Return a request as bytes."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]).encode()


def serial(stack: Stack) -> str:
    """Return what tells the certificate that is served now from others: its bytes."""
    with connect(stack) as connection:
        certificate = connection.getpeercert(binary_form=True)
        assert certificate
        return certificate.hex()


class Http2:
    """One connection over HTTP/2. Nothing is repeated."""

    def __init__(self, stack: Stack) -> None:
        self.socket = connect(stack, with_=context("h2"))
        assert self.socket.selected_alpn_protocol() == "h2"
        self.state = h2.connection.H2Connection()
        self.state.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what the protocol has to say."""
        self.socket.sendall(self.state.data_to_send())

    def events(self) -> Iterator[h2.events.Event]:
        """Yield what the server sends, until it closes."""
        while data := self.socket.recv(65_536):
            yield from self.state.receive_data(data)
            self.flush()

    def begin(self, path: str, method: str = "GET") -> int:
        """Open a stream with a request and return its number; with a POST, its body is still to come."""
        stream = self.state.get_next_available_stream_id()
        pseudo = {":method": method, ":authority": "localhost", ":scheme": "https", ":path": path}
        self.state.send_headers(stream, list(pseudo.items()), end_stream=method == "GET")
        return stream

    def statuses(self, paths: Sequence[str]) -> list[int]:
        """Ask for all of these at the same time; return their statuses, in the order of the answers."""
        for path in paths:
            self.begin(path)
        self.flush()
        return self.answers(len(paths))

    def answers(self, count: int) -> list[int]:
        """Return the statuses of so many streams that were opened, when they have ended."""
        found, ended = [], set[int]()
        for event in self.events():
            if isinstance(event, h2.events.ResponseReceived):
                found.append(int(dict(event.headers or ())[b":status"]))
            elif isinstance(event, h2.events.DataReceived):
                self.state.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                # A refused one is reset as well.
                ended.add(event.stream_id)
                if len(ended) == count:
                    return found
        raise AssertionError(f"closed after {len(ended)} of {count}")

    def close(self) -> None:
        """Close at once."""
        self.socket.close()


def extension(number: int, content: bytes) -> bytes:
    """Return an extension of a ClientHello."""
    return struct.pack("!HH", number, len(content)) + content


def sized(content: bytes) -> bytes:
    """Return bytes after their length."""
    return struct.pack("!H", len(content)) + content


def chosen_group(stack: Stack, groups: Sequence[int]) -> int:
    """Return the group that the server chooses of these, for a client that comes without a key for any."""
    name = b"localhost"
    extensions = b"".join(
        [
            extension(0, sized(b"\0" + sized(name))),
            extension(10, sized(b"".join(struct.pack("!H", group) for group in groups))),
            # ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256
            extension(13, sized(b"\x04\x03\x08\x04")),
            extension(SUPPORTED_VERSIONS, b"\x02\x03\x04"),
            extension(KEY_SHARE, sized(b"")),
        ]
    )
    # TLS 1.2 for old middleboxes, a random number, no session, TLS_AES_128_GCM_SHA256, no compression
    hello = b"\x03\x03" + bytes(32) + b"\0" + sized(b"\x13\x01") + b"\x01\0" + sized(extensions)
    message = b"\x01" + len(hello).to_bytes(3, "big") + hello
    with socket.create_connection(("127.0.0.1", stack.https_port), timeout=20) as connection:
        connection.sendall(b"\x16\x03\x01" + sized(message))
        answer = connection.recv(4096)
    assert answer[0] == HANDSHAKE, f"refused: {answer[:7].hex()}"
    assert answer[5] == SERVER_HELLO
    # HelloRetryRequest: header 5 + 4, version 2, random 32, session 1, suite 2, compression 1, length 2
    rest = answer[49 : 5 + int.from_bytes(answer[3:5], "big")]
    while rest:
        number, length = struct.unpack_from("!HH", rest)
        if number == KEY_SHARE:
            return int.from_bytes(rest[4:6], "big")
        rest = rest[4 + length :]
    raise AssertionError("no group in the answer")
