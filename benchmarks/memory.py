"""What waiting costs: bytes per task that waits, bytes per connection that idles.

As a script, ``memory.py LOOP TASKS`` prints the two figures of the waiting tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import ssl
import struct
import sys
import tracemalloc
from collections.abc import Callable
from functools import cache
from pathlib import Path

import tls
from harness import Backend, Benchmark, Settings, Unavailable, run_python
from serving import server


def resident_bytes(pid: int | str = "self") -> int:
    """The process's resident set in bytes, exact to the page."""
    rollup = Path(f"/proc/{pid}/smaps_rollup")
    try:
        text = rollup.read_text()
    except OSError as error:
        raise Unavailable(f"no resident set size here: {error}") from error
    line = next(line for line in text.splitlines() if line.startswith("Rss:"))
    return int(line.split()[1]) * 1024


async def tasks_waiting(count: int) -> dict[str, float]:
    """Bytes per task that awaits a future of its own, everything counted: the task,
    its coroutine, the future and the two list entries that hold task and future."""
    loop = asyncio.get_running_loop()

    async def wait(future: asyncio.Future[None]) -> None:
        await future

    async def grow(size: Callable[[], int]) -> float:
        gc.collect()
        before = size()
        futures = [loop.create_future() for _ in range(count)]
        tasks = [loop.create_task(wait(future)) for future in futures]
        await asyncio.sleep(0)
        gc.collect()
        grown = size() - before
        for future in futures:
            future.set_result(None)
        await asyncio.wait(tasks)
        return grown / count

    # RSS first: tracing would count its own tables, and the second round would find
    # the memory of the first one free.
    resident = await grow(resident_bytes)
    tracemalloc.start()
    traced = await grow(lambda: tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return {"rss": resident, "traced": traced}


def waiting_task(figure: str) -> Callable[[str, Settings], float]:
    """The measurement of `figure` out of `tasks_waiting`."""

    def measure(loop: str, settings: Settings) -> float:
        count = 50_000 // settings.shrink
        return float(json.loads(run_python("memory.py", loop, str(count)))[figure])

    return measure


def idle_connection(
    script: str,
    connect: Callable[[str], socket.socket],
    total: int,
    prepare: Callable[[], None] = lambda: None,
) -> Callable[[str, Settings], float]:
    """The measurement of a server's RSS per connection that has echoed once and is quiet
    since: the growth from the first fifth of the connections to all."""

    def measure(loop: str, settings: Settings) -> float:
        count = total // settings.shrink
        prepare()
        with contextlib.ExitStack() as stack:
            try:
                address, pid = stack.enter_context(
                    server(script, "echo", loop, settings.server_cpu)
                )
                first = 0
                for number in range(1, count + 1):
                    client = stack.enter_context(connect(address))
                    client.sendall(b"here")
                    if client.recv(4) != b"here":
                        raise Unavailable(f"connection {number} was not answered")
                    if number == count // 5:
                        first = resident_bytes(pid)
                return (resident_bytes(pid) - first) / (count - count // 5)
            except OSError as error:
                raise Unavailable(str(error)) from error

    return measure


def connect_tcp(address: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", int(address)), timeout=10)
    # Closed by a reset, so that no port is left in TIME_WAIT for a minute.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return client


def connect_tls(address: str) -> socket.socket:
    return tls.connect(address, client_context())


@cache
def client_context() -> ssl.SSLContext:
    """One for all connections, as in any client."""
    return tls.client_context()


BENCHMARKS = [
    Benchmark(
        "task_waiting_traced",
        "a task waiting for a future of its own, tracemalloc",
        "B",
        waiting_task("traced"),
        rounds=1,
    ),
    Benchmark(
        "task_waiting_rss",
        "the same by the growth of RSS",
        "B",
        waiting_task("rss"),
        judge="median",
        rounds=3,
    ),
    Benchmark(
        "connection_idle_rss",
        "an idle TCP connection, growth of the server's RSS",
        "B",
        idle_connection("tcp.py", connect_tcp, 5_000),
        judge="median",
        rounds=3,
    ),
    Benchmark(
        "tls_idle_rss",
        "an idle TLS connection, growth of the server's RSS",
        "B",
        idle_connection("tls.py", connect_tls, 1_000, tls.make_certificate),
        judge="median",
        rounds=3,
    ),
]


if __name__ == "__main__":
    backend = Backend.load(sys.argv[1])
    print(json.dumps(backend.run(tasks_waiting(int(sys.argv[2])))))
