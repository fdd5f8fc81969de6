"""What compressing an answer costs nginx, and what it saves: `python -m tools.compression PATH...`, on your stack.

Each round asks for each path with and without gzip, so that both see the same minute of the machine.
"""

from __future__ import annotations

import http.client
import sys
from http import HTTPStatus
from statistics import median

from ops import stack, state
from ops.console import Stop
from tools.bench.cgroup import Cpu

ROUNDS = 7
REQUESTS = 300
ENCODINGS = ("gzip", "identity")


def main() -> int:
    """Print, for each path, the bytes and nginx's processor time of an answer in both encodings."""
    config = stack.config(state.current_files())
    address = stack.published(config, stack.entrance(config))
    cpu = Cpu([container.id for container in stack.workers("nginx")])
    print("| path | bytes | gzip | of it | nginx, CPU us | gzip | more |\n|---|---|---|---|---|---|---|")
    for path in sys.argv[1:]:
        figures: dict[str, list[tuple[float, float]]] = {encoding: [] for encoding in ENCODINGS}
        for _ in range(ROUNDS):
            for encoding in ENCODINGS:
                figures[encoding].append(asked(address, path, encoding, cpu))
        (size, time), (packed, more) = (middle(figures[encoding]) for encoding in ("identity", "gzip"))
        share, extra = packed / size, more - time
        print(f"| `{path}` | {size:.0f} | {packed:.0f} | {share:.2f} | {time:.0f} | {more:.0f} | {extra:.0f} |")
    return 0


def asked(address: str, path: str, encoding: str, cpu: Cpu) -> tuple[float, float]:
    """Return the bytes of an answer and nginx's time for it, in microseconds, as means of many requests.

    Raises Stop if an answer is not a page.
    """
    connection = http.client.HTTPConnection(address, timeout=10)
    size, before = 0, cpu.seconds()
    for _ in range(REQUESTS):
        connection.request("GET", path, headers={"Accept-Encoding": encoding})
        response = connection.getresponse()
        size += len(response.read())
        if response.status != HTTPStatus.OK:
            raise Stop(f"{path} answers {response.status}. Lift the rate limit: NGINX_REQUEST_RATE=1000000r/s make up")
    spent = cpu.seconds() - before
    connection.close()
    return size / REQUESTS, spent / REQUESTS * 1e6


def middle(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the median of each figure."""
    sizes, times = zip(*samples, strict=True)
    return median(sizes), median(times)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Stop as stopped:
        sys.exit(str(stopped))
