"""Protocol servers on TCP and Unix sockets under a C client's load, beside an echo in C.

The client is ``c/load.c``, the floor ``c/echo_uv.c``. Unix sockets stand here because only
the address differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

from harness import Benchmark
from serving import FLOOR, CLoad, main

SIZES = {"64b": 64, "1k": 1024, "16k": 16 * 1024, "128k": 128 * 1024}
CONNECTIONS = (1, 10, 100, 1000)


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


async def listen(protocol: Callable[[], asyncio.Protocol]) -> tuple[str, object]:
    """A TCP server of this protocol on 127.0.0.1."""
    # A host and a port, not a socket made here: on one whose `proto` is 0 stock
    # asyncio sets no TCP_NODELAY, and the answers wait for delayed ACKs.
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=1024)
    return str(server.sockets[0].getsockname()[1]), server


async def echo(_folder: Path) -> tuple[str, object]:
    return await listen(Echo)


async def three_writes(_folder: Path) -> tuple[str, object]:
    return await listen(ThreeWrites)


async def unix_echo(folder: Path) -> tuple[str, object]:
    path = str(folder / "echo")
    loop = asyncio.get_running_loop()
    return path, await loop.create_unix_server(Echo, path, backlog=1024)


def echo_cell(label: str, connections: int) -> Benchmark:
    """One cell of the table of sizes and connections."""
    size = SIZES[label]
    # At 128 KiB the kernel's copying is all there is to see: fewer will do.
    requests = 8_000 if size > 64 * 1024 else 20_000
    return Benchmark(
        f"tcp_echo_{label}_{connections}",
        f"Protocol echo {size} B on {connections} connections, server CPU per request",
        "ns",
        CLoad("tcp.py", "echo", requests, "tcp", connections, size),
        judge="median",
        references=(FLOOR,),
    )


BENCHMARKS = [echo_cell(label, connections) for label in SIZES for connections in CONNECTIONS]
BENCHMARKS += [
    Benchmark(
        "tcp_three_writes_1k",
        "three writes per answer, 1024 B on 10 connections, server CPU per request",
        "ns",
        CLoad("tcp.py", "three_writes", 20_000, "tcp", 10, 1024),
        judge="median",
    ),
    Benchmark(
        "unix_echo_1k",
        "Protocol echo 1024 B on 10 Unix sockets, server CPU per request",
        "ns",
        CLoad("tcp.py", "unix_echo", 20_000, "unix", 10, 1024),
        judge="median",
    ),
]


if __name__ == "__main__":
    main({"echo": echo, "three_writes": three_writes, "unix_echo": unix_echo})
