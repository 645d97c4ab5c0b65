"""What the tests of setting connections and servers up share: cases, servers, protocols.

A case is a coroutine function of the running loop; the same runs on stock asyncio and here.
"""

import asyncio
import contextlib
import errno
import os
import stat
import sys

from network import until

TIMEOUT = 4
LINUX = sys.platform.startswith("linux")


class Notes(asyncio.Protocol):
    """Writes down what it is told; data that comes in several pieces is one event."""

    def __init__(self):
        self.events, self.data, self.transport = [], b"", None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        self.data += data
        if self.events[-1:] != ["data"]:
            self.events.append("data")

    async def received(self, size=1):
        """Wait until it has been told so much."""
        await until(lambda: len(self.data) >= size)

    def eof_received(self):
        self.events.append("eof")

    def connection_lost(self, exc):
        self.events.append(f"lost {type(exc).__name__}")
        self.lost.set_result(exc)


class Accepted(Notes):
    """Keeps every one of itself in the list that it is made with."""

    def __init__(self, all_of_them):
        super().__init__()
        all_of_them.append(self)


def address(server):
    return server.sockets[0].getsockname()


async def refusal(awaitable):
    """How an awaitable fails, in words; what it gives is closed, if it does not fail."""
    try:
        value = await awaitable
    except Exception as error:
        code = errno.errorcode.get(getattr(error, "errno", None), "")
        return f"{type(error).__name__} {code}: {error}"
    if isinstance(value, tuple):
        value[0].close()
        await asyncio.sleep(0.001)
        return "connected"
    value.close()
    return "served"


async def ending(transport, protocol):
    transport.close()
    await protocol.lost


@contextlib.asynccontextmanager
async def listening(count=1, **options):
    """A server, the protocols of those that it took, and connected clients."""
    loop = asyncio.get_running_loop()
    taken, clients = [], []
    server = await loop.create_server(lambda: Accepted(taken), "127.0.0.1", 0, **options)
    try:
        for _ in range(count):
            clients.append(await loop.create_connection(Notes, *address(server)))
        await until(lambda: len(taken) == count and all(each.transport for each in taken))
        yield server, taken, clients
    finally:
        server.close()
        for protocol in [*(client[1] for client in clients), *taken]:
            # asyncio's own transport cannot be aborted after every way of ending.
            if not protocol.lost.done():
                protocol.transport.abort()
            await protocol.lost


def open_sockets():
    """How many there are. Not all descriptors: a loop has its own, opened when it needs them."""
    count = 0
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            count += stat.S_ISSOCK(os.fstat(int(name)).st_mode)
    return count
