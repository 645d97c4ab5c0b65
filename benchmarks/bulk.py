"""Bytes in one direction, as fast as they go: TCP both ways, and out of a pipe.

TLS uses the same protocols on its own sockets (tls.py).
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import cast

from harness import Benchmark
from serving import Clock, PeerLoad, in_slices, main

MIB = 1 << 20
BLOCK = bytes(256 * 1024)
TIMEOUT_S = 10


class Source(asyncio.Protocol):
    """Write without end, as much as flow control allows."""

    __slots__ = ("paused", "transport")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's and rloop's transports are not asyncio.Transport.
        self.transport = cast(asyncio.Transport, transport)
        self.resume_writing()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        while not self.paused and not self.transport.is_closing():
            self.transport.write(BLOCK)


class Sink(asyncio.Protocol):
    """Take what comes."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        pass


async def sends(_folder: Path) -> tuple[str, object]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Source, "127.0.0.1", 0)
    return str(server.sockets[0].getsockname()[1]), server


async def receives(_folder: Path) -> tuple[str, object]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sink, "127.0.0.1", 0)
    return str(server.sockets[0].getsockname()[1]), server


async def pipe(folder: Path) -> tuple[str, object]:
    path = str(folder / "pipe")
    os.mkfifo(path)
    # Open for writing as well, so that the pipe has not ended before the peer opens it.
    reading = os.fdopen(os.open(path, os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0)
    loop = asyncio.get_running_loop()
    return path, await loop.connect_read_pipe(Sink, reading)


def take(connection: socket.socket, clock: Clock, mib: int) -> float:
    """Receive `mib` MiB; the server's CPU ns for each."""
    buffer = memoryview(bytearray(MIB))

    def receive(some_mib: int) -> None:
        left = some_mib * MIB
        while left > 0:
            count = connection.recv_into(buffer)
            if not count:
                raise ConnectionError("the server closed the connection")
            left -= count

    return in_slices(clock, mib, receive)


def give(connection: socket.socket, clock: Clock, mib: int) -> float:
    """Send `mib` MiB; the server's CPU ns for each."""

    def send(some_mib: int) -> None:
        for _ in range(some_mib * (MIB // len(BLOCK))):
            connection.sendall(BLOCK)

    return in_slices(clock, mib, send)


def take_tcp(address: str, clock: Clock, mib: int) -> float:
    with socket.create_connection(("127.0.0.1", int(address)), TIMEOUT_S) as connection:
        return take(connection, clock, mib)


def give_tcp(address: str, clock: Clock, mib: int) -> float:
    with socket.create_connection(("127.0.0.1", int(address)), TIMEOUT_S) as connection:
        return give(connection, clock, mib)


def give_pipe(address: str, clock: Clock, mib: int) -> float:
    """Write into a pipe as programs do, 64 KiB at a time."""
    block = BLOCK[: 64 * 1024]
    with open(address, "wb", buffering=0) as writing:

        def write(some_mib: int) -> None:
            for _ in range(some_mib * (MIB // len(block))):
                writing.write(block)

        return in_slices(clock, mib, write)


def benchmark(name: str, kind: str, peer: str, about: str, mib: int) -> Benchmark:
    """One row of the table."""
    return Benchmark(
        name,
        f"{about}, server CPU per MiB",
        "ns",
        PeerLoad("bulk.py", kind, mib, peer),
        judge="median",
    )


BENCHMARKS = [
    benchmark("tcp_bulk_send", "sends", "take_tcp", "TCP, the server sends", 1000),
    benchmark("tcp_bulk_receive", "receives", "give_tcp", "TCP, the server receives", 1000),
    benchmark("pipe_read", "pipe", "give_pipe", "connect_read_pipe, 64 KiB writes", 1000),
]


if __name__ == "__main__":
    main(
        {"sends": sends, "receives": receives, "pipe": pipe},
        {"take_tcp": take_tcp, "give_tcp": give_tcp, "give_pipe": give_pipe},
    )
