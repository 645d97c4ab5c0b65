"""Sockets without transports, loop.sock_*: between two tasks, and under a C client's load.

Two tasks on a socketpair show what the loop costs; on TCP most of the figure is the
kernel's network.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from harness import Benchmark, program, program_benchmarks
from serving import CLoad, main


async def echo_socket(connection: socket.socket) -> None:
    """Send back what comes until the peer closes."""
    loop = asyncio.get_running_loop()
    with connection:
        while data := await loop.sock_recv(connection, 64 * 1024):
            await loop.sock_sendall(connection, data)


@program("sock_recv, sock_sendall; 1024 B to an echo in another task and back")
async def sock_echo_pair(n: int) -> None:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    task = loop.create_task(echo_socket(far))
    message = bytes(1024)
    for _ in range(n):
        await loop.sock_sendall(near, message)
        assert len(await loop.sock_recv(near, 64 * 1024)) == len(message)
    near.close()
    await task


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
        CLoad("sock.py", "echo", 20_000, "tcp", connections, 1024),
        judge="median",
    )


BENCHMARKS = [*program_benchmarks(__name__), benchmark(1), benchmark(10)]


if __name__ == "__main__":
    main({"echo": echo})
