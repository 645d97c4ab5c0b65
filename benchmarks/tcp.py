"""TCP servers under a C client's load: the server's CPU time per request.

As a script, ``tcp.py KIND LOOP CPU`` is one of the servers: it prints its port and serves
127.0.0.1 until its stdin ends. The client is ``c/load.c``, the floor is ``c/echo_uv.c``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import cast

from harness import HERE, Backend, Benchmark, Settings, Unavailable, pin

FLOOR = "libuv"
BUILD = HERE.parent / ".dev" / "benchmarks"


class Echo(asyncio.Protocol):
    """Send back what came."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's and rloop's transports are not asyncio.Transport.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class ThreeWrites(Echo):
    """Answer in three pieces, as one who writes a status, a head and a body."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        write = self.transport.write
        write(data[:16])
        write(data[16:128])
        write(data[128:])


async def echo_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back line by line through streams."""
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def accept_sockets(listener: socket.socket) -> None:
    """Echo through loop.sock_*, a task per connection."""
    loop = asyncio.get_running_loop()

    async def echo(connection: socket.socket) -> None:
        with connection:
            while data := await loop.sock_recv(connection, 256 * 1024):
                await loop.sock_sendall(connection, data)

    tasks = set()
    while True:
        connection, _ = await loop.sock_accept(listener)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(echo(connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def serve(kind: str) -> None:
    """Serve until stdin ends."""
    # glibc maps and unmaps stock asyncio's 256 KiB read buffer at each read until a
    # larger block has been freed once, which doubles its cost. A real program has done
    # that long before; here it happens now.
    bytes(4 << 20)
    loop = asyncio.get_running_loop()
    if kind == "sockets":
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listener.setblocking(False)
        accepting = loop.create_task(accept_sockets(listener))
        port = listener.getsockname()[1]
    else:
        # A host and a port, not a socket made here: on one whose `proto` is 0 stock
        # asyncio sets no TCP_NODELAY, and the answers wait for delayed ACKs.
        if kind == "streams":
            server = await asyncio.start_server(echo_lines, "127.0.0.1", 0, backlog=1024)
        else:
            protocol: Callable[[], asyncio.Protocol]
            protocol = {"echo": Echo, "three_writes": ThreeWrites}[kind]
            server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=1024)
        port = server.sockets[0].getsockname()[1]
    print(port, flush=True)
    # A thread waits for the end: it costs nothing while the server works, and every
    # loop has an executor, while not every one can watch a pipe.
    await loop.run_in_executor(None, sys.stdin.read)
    if kind == "sockets":
        accepting.cancel()


@cache
def compiled(name: str, *packages: str) -> str:
    """Compile ``c/<name>.c`` unless that is done already; the program's path."""
    source, target = HERE / "c" / f"{name}.c", BUILD / name
    if target.exists() and target.stat().st_mtime > source.stat().st_mtime:
        return str(target)
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Unavailable("the TCP benchmarks need a C compiler")
    flags = []
    try:
        if packages:
            command = ["pkg-config", "--cflags", "--libs", *packages]
            flags = subprocess.check_output(command, text=True).split()
        BUILD.mkdir(parents=True, exist_ok=True)
        command = [compiler, "-O2", "-Wall", str(source), "-o", str(target), *flags]
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"cannot build {source.name}: {error}") from error
    return str(target)


@contextlib.contextmanager
def server(kind: str, loop: str, cpu: int) -> Iterator[tuple[int, int]]:
    """A server in a process of its own on core `cpu`; its port and process id."""
    if loop == FLOOR:
        command = [compiled("echo_uv", "libuv")]
    else:
        command = [sys.executable, str(Path(__file__)), kind, loop, str(cpu)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if loop == FLOOR and hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(process.pid, {cores[cpu % len(cores)]})
        port = process.stdout.readline()
        if not port:
            raise Unavailable(f"the {kind} server did not start on {loop}")
        yield int(port), process.pid
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measured(
    kind: str, connections: int, size: int, requests: int
) -> Callable[[str, Settings], float]:
    """The measurement of one server under one load, in CPU ns/request."""

    def measure(loop: str, settings: Settings) -> float:
        if not sys.platform.startswith("linux"):
            raise Unavailable("the load generator is written for Linux")
        load = compiled("load")
        with server(kind, loop, settings.server_cpu) as (port, pid):
            numbers = [port, pid, connections, size, requests // settings.shrink]
            done = subprocess.run(
                [load, *map(str, numbers)],
                check=False,
                capture_output=True,
                text=True,
                preexec_fn=lambda: pin(settings.client_cpu),
            )
        if done.returncode:
            # A negative code is the client's own alarm: the server fell silent.
            why = done.stderr.strip() or "the server stopped answering"
            raise Unavailable(why)
        return float(json.loads(done.stdout)["cpu_ns"])

    return measure


def benchmark(
    kind: str, connections: int, size: int, label: str, requests: int = 20_000
) -> Benchmark:
    """One row of the TCP table."""
    how = {
        "echo": "Protocol echo",
        "streams": "streams readline, write, drain;",
        "three_writes": "three writes per answer;",
        "sockets": "sock_recv, sock_sendall;",
    }[kind]
    return Benchmark(
        f"tcp_{kind}_{label}",
        f"{how} {size} B on {connections} connections, server CPU per request",
        "ns",
        measured(kind, connections, size, requests),
        judge="median",
        references=(FLOOR,) if kind == "echo" else (),
    )


BENCHMARKS = [
    benchmark("echo", 10, 64, "64b"),
    benchmark("echo", 10, 1024, "1k"),
    benchmark("echo", 100, 1024, "1k_100"),
    benchmark("echo", 10, 16 * 1024, "16k"),
    benchmark("echo", 10, 100 * 1024, "100k", requests=5_000),
    benchmark("three_writes", 10, 1024, "1k"),
    benchmark("streams", 10, 1024, "1k"),
    benchmark("sockets", 10, 1024, "1k"),
]


if __name__ == "__main__":
    pin(int(sys.argv[3]))
    Backend.load(sys.argv[2]).run(serve(sys.argv[1]))
