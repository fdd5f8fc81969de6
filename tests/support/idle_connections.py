"""Opens many keep-alive connections to 127.0.0.1:8080 and uses each twice; runs inside nginx-socket's network.

Usage: idle_connections.py COUNT. Prints one JSON line once all are open and idle, waits for a line on its
input, uses every one again, and prints a second. Standard library only: it runs in the project's image.
"""

import asyncio
import json
import sys

AT_ONCE = 200
PATIENCE_SECONDS = 60
REQUEST = b"GET /static/probe/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(connection: Connection) -> bool:
    """Send a request and return whether the answer is a 200."""
    reader, writer = connection
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return head.startswith(b"HTTP/1.1 200 ")


async def all_of(count: int) -> None:
    """Open, report, wait, use again, report."""
    few = asyncio.Semaphore(AT_ONCE)
    connections: list[Connection] = []

    async def first() -> bool:
        async with few:
            connection = await asyncio.open_connection("127.0.0.1", 8080)
            connections.append(connection)
            return await ask(connection)

    async def second(connection: Connection) -> bool:
        async with few:
            return await ask(connection)

    async with asyncio.timeout(PATIENCE_SECONDS):
        answered = await asyncio.gather(*(first() for _ in range(count)), return_exceptions=True)
    print(json.dumps({"answered": answered.count(True)}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    async with asyncio.timeout(PATIENCE_SECONDS):
        again = await asyncio.gather(*map(second, connections), return_exceptions=True)
    print(json.dumps({"answered": again.count(True)}), flush=True)
    for _, writer in connections:
        writer.close()


if __name__ == "__main__":
    asyncio.run(all_of(int(sys.argv[1])))
