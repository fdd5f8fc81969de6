"""Clients on keep-alive connections that verify every answer, repeat nothing and record every failure."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# A request that takes longer has failed: above nginx's own patience (35 s).
PATIENCE_SECONDS = 45
BODY_BYTES = 2_000
SLOW_MILLISECONDS = 3_000


@dataclass(frozen=True)
class Failure:
    """One request that was not answered as it should be."""

    second: float
    request: str
    reason: str


@dataclass
class Load:
    """A load under way from `with` to its end, and until `least` requests were sent: half of them POST, some slow.

    `requests` counts those that were sent, `failures` holds each that went wrong.
    """

    host: str
    port: int
    clients: int = 6
    slow_clients: int = 2
    # Between two requests of a client, so that on two cores the deploy has its share, too.
    pause_seconds: float = 0.01
    # Enough for the result to mean something; a slow machine takes longer to send them.
    least: int = 300
    # For https
    tls: ssl.SSLContext | None = None
    # Further clients that open a connection for each request: over https, a full handshake each time
    fresh_clients: int = 0
    requests: int = 0
    failures: list[Failure] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        """Start the clients in a thread of their own."""
        self._began = time.monotonic()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Go on until enough was sent, then let every client finish the request it is at."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.requests < self.least and time.monotonic() < deadline:
            time.sleep(0.1)
        self._stop.set()
        self._thread.join(PATIENCE_SECONDS + 5)

    def lost(self) -> list[str]:
        """Return what went wrong, of a load that has ended. Fails if there was too little of it to prove anything."""
        assert self.requests >= self.least, f"only {self.requests} of {self.least} requests"
        return [f"{failure.second:.1f} s: {failure.request}: {failure.reason}" for failure in self.failures]

    async def _all(self) -> None:
        fast = [self._client(number, self._quick) for number in range(self.clients)]
        slow = [self._client(number, self._slow) for number in range(self.slow_clients)]
        fresh = [self._client(number, self._quick, keep=False) for number in range(self.fresh_clients)]
        await asyncio.gather(*fast, *slow, *fresh)

    async def _client(
        self, number: int, request: Callable[[str], tuple[bytes, Callable[[bytes], bool]]], keep: bool = True
    ) -> None:
        connection: Connection | None = None
        sent = 0
        while not self._stop.is_set():
            sent += 1
            name = f"{number}-{sent}"
            text, right = request(name)
            self.requests += 1
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    connection = connection or await Connection.open(self.host, self.port, self.tls)
                    status, body, last = await connection.ask(text)
                if status != 200 or not right(body):
                    self._failed(text, f"{status} {body[:120]!r}")
                if last or not keep:
                    connection.close()
                    connection = None
            except (OSError, EOFError, TimeoutError, ValueError) as problem:
                self._failed(text, repr(problem))
                if connection:
                    connection.close()
                connection = None
            await asyncio.sleep(self.pause_seconds)
        if connection:
            connection.close()

    def _failed(self, request: bytes, reason: str) -> None:
        self.failures.append(Failure(time.monotonic() - self._began, request.split(b"\r\n")[0].decode(), reason))

    def _quick(self, name: str) -> tuple[bytes, Callable[[bytes], bool]]:
        """Return a GET or, every second time, a POST, and how to tell a right answer."""
        if int(name.rpartition("-")[2]) % 2:
            head = f"GET /echo?{name} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            return head.encode(), lambda body: json.loads(body)["query"] == name
        content = (name * BODY_BYTES)[:BODY_BYTES].encode()
        checksum = hashlib.sha256(content).hexdigest()
        head = f"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        return head.encode() + content, lambda body: json.loads(body)["sha256"] == checksum

    def _slow(self, name: str) -> tuple[bytes, Callable[[bytes], bool]]:
        """Return a request that is in flight most of the time."""
        head = f"GET /sleep/{SLOW_MILLISECONDS}?{name} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        return head.encode(), lambda body: body == b"slept"


class Connection:
    """One keep-alive connection. Not an HTTP library: those repeat a request when a connection breaks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None = None) -> Connection:
        """Connect."""
        return cls(*await asyncio.open_connection(host, port, ssl=tls, server_hostname="localhost" if tls else None))

    def close(self) -> None:
        """Close at once."""
        self.writer.close()

    async def ask(self, request: bytes) -> tuple[int, bytes, bool]:
        """Send a request; return the status, the body and whether the server will close."""
        self.writer.write(request)
        await self.writer.drain()
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ", 2)[1])
        if b"transfer-encoding: chunked" in head:
            body = await self._chunks()
        else:
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await self.reader.readexactly(length)
        return status, body, b"connection: close" in head

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()
        return body
