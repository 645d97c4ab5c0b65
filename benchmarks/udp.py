"""A UDP echo under a C client's load."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from harness import Benchmark
from serving import CLoad, main


class Echo(asyncio.DatagramProtocol):
    """Send each datagram back to where it came from."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transport is not asyncio.DatagramTransport.
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)


async def echo(_folder: Path) -> tuple[str, object]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    return str(transport.get_extra_info("sockname")[1]), transport


def benchmark(label: str, size: int) -> Benchmark:
    """One row of the table."""
    return Benchmark(
        f"udp_echo_{label}",
        f"UDP echo {size} B from 10 sockets, server CPU per datagram",
        "ns",
        CLoad("udp.py", "echo", 20_000, "udp", 10, size),
        judge="median",
    )


BENCHMARKS = [benchmark("64b", 64), benchmark("1k", 1024)]


if __name__ == "__main__":
    main({"echo": echo})
