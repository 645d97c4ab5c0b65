"""asyncio streams on TCP and Unix sockets under a C client's load."""

from __future__ import annotations

import asyncio
from pathlib import Path

from harness import Benchmark
from serving import CLoad, main

SIZE = 1024


async def echo_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back line by line."""
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def echo_exactly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back messages of a size both sides know."""
    try:
        while True:
            writer.write(await reader.readexactly(SIZE))
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


async def readline(_folder: Path) -> tuple[str, object]:
    server = await asyncio.start_server(echo_lines, "127.0.0.1", 0, backlog=1024)
    return str(server.sockets[0].getsockname()[1]), server


async def readexactly(_folder: Path) -> tuple[str, object]:
    server = await asyncio.start_server(echo_exactly, "127.0.0.1", 0, backlog=1024)
    return str(server.sockets[0].getsockname()[1]), server


async def unix_readline(folder: Path) -> tuple[str, object]:
    path = str(folder / "streams")
    return path, await asyncio.start_unix_server(echo_lines, path, backlog=1024)


def benchmark(name: str, kind: str, load: str, how: str) -> Benchmark:
    """One row of the table."""
    return Benchmark(
        name,
        f"{how}, write, drain; {SIZE} B on 10 connections, server CPU per request",
        "ns",
        CLoad("streams.py", kind, 20_000, load, 10, SIZE),
        judge="median",
    )


BENCHMARKS = [
    benchmark("streams_readline_1k", "readline", "tcp", "readline"),
    benchmark("streams_readexactly_1k", "readexactly", "tcp", "readexactly"),
    benchmark("streams_unix_1k", "unix_readline", "unix", "readline on Unix sockets"),
]


if __name__ == "__main__":
    main({"readline": readline, "readexactly": readexactly, "unix_readline": unix_readline})
