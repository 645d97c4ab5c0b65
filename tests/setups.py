"""What the tests of setting connections and servers up share: cases, servers, seen contexts.

A case is a coroutine function of the running loop; the same runs on stock asyncio and here.
"""

import asyncio
import contextlib
import contextvars
import errno
import functools
import os
import stat
import sys

from network import until
from outcome import Cases

TIMEOUT = 4
LINUX = sys.platform.startswith("linux")


class AwaitedCases(Cases):
    """Cases that are coroutine functions."""

    def awaited(self, *arguments, since=(3, 10), needs=True):
        """One case, or one for each argument; not before a version of Python, or elsewhere."""

        def add(function):
            @functools.wraps(function)
            def run(loop, *argument):
                coroutine = function(loop, *argument)
                return loop.run_until_complete(asyncio.wait_for(coroutine, TIMEOUT))

            if sys.version_info >= since and needs:
                self.each(*arguments)(run) if arguments else self.one(run)
            return function

        return add


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


VARIABLE = contextvars.ContextVar("VARIABLE", default="none")


class Sees(Notes):
    """Writes down the context of each call, and changes it."""

    def __init__(self, seen):
        super().__init__()
        self.seen, self.resumed = seen, False
        self.see("created")

    def see(self, name):
        self.seen.append((name, VARIABLE.get()))
        VARIABLE.set(name)

    def connection_made(self, transport):
        self.see("made")
        super().connection_made(transport)

    def data_received(self, data):
        self.see("data")
        super().data_received(data)

    def eof_received(self):
        self.see("eof")
        return True

    def pause_writing(self):
        self.see("pause")

    def resume_writing(self):
        # Before 3.15 asyncio's is that of the write which the kernel did not take, ours is the
        # connection's.
        self.resumed = True
        if sys.version_info >= (3, 15):
            self.see("resume")

    def connection_lost(self, exc):
        self.see("lost")
        super().connection_lost(exc)


class SeesBuffers(Sees, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        self.see("buffer")
        self.space = bytearray(100)
        return self.space

    def buffer_updated(self, nbytes):
        self.see("updated")
        self.data += self.space[:nbytes]


def named(name, coroutine_function, *arguments):
    """A task with a context in which the variable is this name."""

    async def run():
        VARIABLE.set(name)
        return await coroutine_function(*arguments)

    return asyncio.ensure_future(run())


async def converse(ours, theirs):
    """Whoever sees contexts is sent to, sends, is paused and resumed, and is left."""
    transport, protocol = ours
    other, peer = theirs
    other.write(b"x")
    await until(lambda: protocol.data)
    transport.set_write_buffer_limits(high=1000)
    other.pause_reading()
    size = 0
    while "pause" not in dict(protocol.seen):
        transport.write(bytes(1 << 20))
        size += 1 << 20
    other.resume_reading()
    await until(lambda: len(peer.data) == size)
    await until(lambda: protocol.resumed)
    other.write_eof()
    await until(lambda: "eof" in dict(protocol.seen))
    transport.close()
    await protocol.lost
    await peer.lost
