"""Sockets without transports, loop.sock_*, under a C client's load."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from harness import Benchmark
from serving import loaded_by_c, main


async def echo_socket(connection: socket.socket) -> None:
    """Send back what comes until the peer closes."""
    loop = asyncio.get_running_loop()
    with connection:
        while data := await loop.sock_recv(connection, 256 * 1024):
            await loop.sock_sendall(connection, data)


async def accept_all(listener: socket.socket) -> None:
    """A task per connection."""
    loop = asyncio.get_running_loop()
    tasks = set()
    while True:
        connection, _ = await loop.sock_accept(listener)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(echo_socket(connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def echo(_folder: Path) -> tuple[str, object]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    accepting = asyncio.get_running_loop().create_task(accept_all(listener))
    return str(listener.getsockname()[1]), accepting


def benchmark(connections: int) -> Benchmark:
    """One row of the table."""
    return Benchmark(
        f"sock_echo_1k_{connections}",
        f"sock_recv, sock_sendall; 1024 B on {connections} connections, server CPU per request",
        "ns",
        loaded_by_c("sock.py", "echo", "tcp", connections, 1024, 20_000),
        judge="median",
    )


BENCHMARKS = [benchmark(1), benchmark(10)]


if __name__ == "__main__":
    main({"echo": echo})
