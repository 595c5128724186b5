"""What the worst answers of a server cost: CPU, memory, and how long they hold an event loop.

Each answer is as large as the package accepts one (16 MiB, compressed on its way) and is built to make a listing
expensive. Each case runs in a process of its own, with its server in another one. A case fails when it takes more
than 3 CPU seconds, more than 300 MB above the process before it, or holds the event loop for more than 0.5 s.
"""

from __future__ import annotations

import asyncio
import gzip
import multiprocessing
import resource
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

SIZE = 16 * 1024 * 1024 - 1024
CPU_SECONDS, MEGABYTES, HELD_SECONDS = 3.0, 300.0, 0.5
SPAWN = multiprocessing.get_context("spawn")


def repeat(begin: bytes, part: Callable[[int], bytes], end: bytes, most: int = 10**9) -> bytes:
    """Build a body: ``begin``, then ``part(0)``, ``part(1)``, ... with commas up to ``SIZE`` bytes, then ``end``."""
    parts, size, number = [], len(begin) + len(end), 0
    while number < most:
        made = part(number)
        size += len(made) + 1
        if size > SIZE:
            break
        parts.append(made)
        number += 1
    return begin + b",".join(parts) + end


def fill(begin: bytes, unit: bytes, end: bytes) -> bytes:
    """Build a body of ``SIZE`` bytes: ``begin``, as many copies of ``unit`` as fit, and ``end``."""
    return begin + unit * ((SIZE - len(begin) - len(end)) // len(unit)) + end


ROWS, END = b'{"data":[', b"]}"
ANSWERS: dict[str, Callable[[], bytes]] = {
    "an ordinary page": lambda: repeat(ROWS, lambda n: b'{"id":"%d","name":"account"}' % n, END, most=100),
    "ids that fall together": lambda: repeat(ROWS, lambda n: b'{"id":"%d"}' % (16381 * (10**6 + n)), END),
    "as many ids as are allowed": lambda: repeat(ROWS, lambda n: b'{"id":"%d"}' % (n << 32), END, most=166_000),
    "nested edges": lambda: repeat(
        b'{"data":[{"id":"1","name":[', lambda n: b'{"x":{"data":[{"id":"1"}]}}', b"]}]}", most=62_000
    ),
    "nested edges, more of them": lambda: repeat(
        b'{"data":[{"id":"1","name":[', lambda n: b'{"x":{"data":[{"id":"1"}]}}', b"]}]}"
    ),
    "empty objects": lambda: repeat(b'{"data":[{"id":"1","name":[', lambda n: b"{}", b"]}]}", most=249_000),
    "many keys": lambda: repeat(b'{"data":[{"id":"1",', lambda n: b'"k%d":1' % n, b"}]}", most=249_000),
    "long numbers": lambda: repeat(b'{"data":[{"id":"1","name":[', lambda n: b"9" * 399, b"]}]}"),
    "one very long number": lambda: fill(b'{"data":[{"id":"1","n":', b"9", b"}]}"),
    "blanks before a colon": lambda: fill(b'{"data":[],"id"', b" ", b":1}"),
    "brackets": lambda: fill(b'{"data":', b"[", b""),
    "percent signs in next": lambda: fill(b'{"data":[],"paging":{"next":"https://x/?after=', b"%41", b'"}}'),
    "parameters in next": lambda: fill(b'{"data":[],"paging":{"next":"https://x/?', b"a=b&", b'"}}'),
    "one long text": lambda: fill(b'{"data":[{"id":"1","name":"', "\U0001f600".encode() + b"a" * 96, b'"}]}'),
    "escapes": lambda: fill(b'{"data":[{"id":"1","name":"', b"\\u0041", b'"}]}'),
    "halves of characters": lambda: fill(b'{"data":[{"id":"1","name":"', b"\\ud83d", b'"}]}'),
    "a text like a secret": lambda: fill(b'{"data":[{"id":"1","name":"\\u0041', b"0123456789abcdef", b'"}]}'),
    "short texts with an escape": lambda: repeat(
        b'{"data":[{"id":"1","name":[', lambda n: b'"\\u0041%d"' % n, b"]}]}", most=490_000
    ),
    "a long error message": lambda: fill(b'{"error":{"code":1,"message":"access_token=a', b"EAAaaaaaaa ", b'"}}'),
}


@dataclass(frozen=True)
class Cost:
    """What one answer cost."""

    cpu: float
    megabytes: float
    held: float
    outcome: str

    @property
    def is_bounded(self) -> bool:
        """Whether it stays within the limits."""
        return self.cpu < CPU_SECONDS and self.megabytes < MEGABYTES and self.held < HELD_SECONDS


def main() -> None:
    """Measure every answer through both clients and print a table."""
    print(f"{'answer':<28} {'client':<6} {'CPU s':>6} {'MB':>6} {'held s':>7}  outcome")
    bounded = True
    wanted = sys.argv[1:] or list(ANSWERS)
    for name in wanted:
        for measure in (measure_sync, measure_async):
            with ProcessPoolExecutor(1, mp_context=SPAWN) as executor:
                cost = executor.submit(run, name, measure).result()
            client = measure.__name__.removeprefix("measure_")
            print(f"{name:<28} {client:<6} {cost.cpu:6.2f} {cost.megabytes:6.0f} {cost.held:7.2f}  {cost.outcome}")
            bounded &= cost.is_bounded
    if not bounded:
        sys.exit("At least one answer is beyond the limits.")


def run(name: str, measure: Callable[[int], Cost]) -> Cost:
    """Start a server that gives the answer, and measure a listing from it."""
    ours, theirs = SPAWN.Pipe()
    server = SPAWN.Process(target=serve, args=(name, theirs), daemon=True)
    server.start()
    try:
        return measure(ours.recv())
    finally:
        server.kill()


def serve(name: str, control: Connection) -> None:
    """Send the same answer on every connection."""
    body = gzip.compress(ANSWERS[name](), 1)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        control.send(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head + body)


def peak_megabytes() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def measure_sync(port: int) -> Cost:
    """Read a listing with the client for tasks."""
    from airflow_provider_whatsapp.graph import GraphError
    from airflow_provider_whatsapp.graph.config import GraphConfig
    from airflow_provider_whatsapp.graph.credentials import Credentials
    from airflow_provider_whatsapp.graph.patience import Patience
    from airflow_provider_whatsapp.graph.query import build_edge_query
    from airflow_provider_whatsapp.transport.sync import GraphClient

    config = GraphConfig(
        credentials=Credentials("EAA" + "token" * 9, "5ecre7" * 5), base_url=f"http://127.0.0.1:{port}", version="v26.0"
    )
    query = build_edge_query("1/client_whatsapp_business_accounts", fields="id,name")
    before, begun = peak_megabytes(), time.process_time()
    try:
        with GraphClient(config, patience=Patience(attempts=1)) as client:
            outcome = f"{sum(len(page.rows) for page in client.pages(query))} rows"
    except GraphError as error:
        outcome = f"{type(error).__name__}: {str(error)[:60]}"
    return Cost(time.process_time() - begun, peak_megabytes() - before, 0.0, outcome)


def measure_async(port: int) -> Cost:
    """Read a listing with the client for event loops, beside a task that notes how late it gets its turn."""
    from airflow_provider_whatsapp.graph import GraphError
    from airflow_provider_whatsapp.graph.config import GraphConfig
    from airflow_provider_whatsapp.graph.credentials import Credentials
    from airflow_provider_whatsapp.graph.patience import Patience
    from airflow_provider_whatsapp.graph.query import build_edge_query, build_node_query
    from airflow_provider_whatsapp.transport.aio import AsyncGraphClient, load_trusted_cas

    config = GraphConfig(
        credentials=Credentials("EAA" + "token" * 9, "5ecre7" * 5), base_url=f"http://127.0.0.1:{port}", version="v26.0"
    )
    query = build_edge_query("1/client_whatsapp_business_accounts", fields="id,name")
    load_trusted_cas(None)
    lateness = [0.0]

    async def tick() -> None:
        while True:
            due = time.perf_counter() + 0.005
            await asyncio.sleep(0.005)
            lateness.append(time.perf_counter() - due)

    async def read() -> str:
        # What httpx and asyncio load at their first use is not the cost of an answer.
        async with AsyncGraphClient(
            replace(config, base_url="http://127.0.0.1:9"), patience=Patience(attempts=1)
        ) as client:
            with suppress(GraphError):
                await client.node(build_node_query("1"))
        await asyncio.to_thread(time.sleep, 0)
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0.05)
        try:
            async with AsyncGraphClient(config, patience=Patience(attempts=1)) as client:
                return f"{sum([len(page.rows) async for page in client.pages(query)])} rows"
        except GraphError as error:
            return f"{type(error).__name__}: {str(error)[:60]}"
        finally:
            await asyncio.sleep(0.02)
            ticking.cancel()

    before, begun = peak_megabytes(), time.process_time()
    outcome = asyncio.run(read())
    return Cost(time.process_time() - begun, peak_megabytes() - before, max(lateness), outcome)


if __name__ == "__main__":
    main()
