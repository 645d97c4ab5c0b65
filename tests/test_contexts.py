"""In which context a protocol is called, of clients and of servers: as on stock asyncio."""

import asyncio
import contextvars
import socket
import sys
import tempfile

import pytest
from network import until
from outcome import AwaitedCases, on_both
from setups import Accepted, Notes, address

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = AwaitedCases()
case = CASES.awaited

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


# --- clients


@case(Sees, SeesBuffers)
async def contexts_of_a_client(loop, kind):
    seen, taken = [], []
    server = await loop.create_server(lambda: Accepted(taken), "127.0.0.1", 0)
    client = await named(
        "client", lambda: loop.create_connection(lambda: kind(seen), *address(server))
    )
    await until(lambda: taken and taken[0].transport)
    await converse(client, (taken[0].transport, taken[0]))
    server.close()
    return seen


# --- servers: from 3.15 on of whoever creates the server


@case("at once", "start_serving", "serve_forever", "unix", "accepted", "buffered")
async def contexts_of_a_server(loop, way):
    seen, taken = [], []

    def factory():
        taken.append((SeesBuffers if way == "buffered" else Sees)(seen))
        return taken[-1]

    with tempfile.TemporaryDirectory() as folder:
        server = serving = None
        path = f"{folder}/socket"
        if way == "unix":
            server = await named("creator", loop.create_unix_server, factory, path)
            client = await loop.create_unix_connection(Notes, path)
        elif way == "accepted":
            a, b = socket.socketpair()
            await named("creator", loop.connect_accepted_socket, factory, a)
            client = await loop.create_connection(Notes, sock=b)
        else:
            server = await named(
                "creator",
                lambda: loop.create_server(
                    factory,
                    "127.0.0.1",
                    0,
                    start_serving=way not in ("start_serving", "serve_forever"),
                ),
            )
            if way == "start_serving":
                await named("starter", server.start_serving)
            elif way == "serve_forever":
                serving = named("starter", server.serve_forever)
                await asyncio.sleep(0)
            client = await loop.create_connection(Notes, *address(server))
        await until(lambda: taken and taken[0].transport)
        await converse((taken[0].transport, taken[0]), client)
        if server is not None:
            server.close()
        if serving is not None:
            await asyncio.wait([serving])
    return seen


@case("function", "coroutine function")
async def contexts_of_streams(loop, kind):
    seen = []

    def function(reader, writer):
        seen.append(VARIABLE.get())
        VARIABLE.set("callback")
        writer.close()

    async def coroutine_function(reader, writer):
        function(reader, writer)
        await writer.wait_closed()
        seen.append(VARIABLE.get())

    callback = locals()[kind.replace(" ", "_")]
    server = await named("creator", lambda: asyncio.start_server(callback, "127.0.0.1", 0))
    for _ in range(2):
        reader, writer = await asyncio.open_connection(*address(server))
        await reader.read()
        writer.close()
        await writer.wait_closed()
    await asyncio.sleep(0.005)
    server.close()
    return seen, VARIABLE.get()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case):
    stock, ours = on_both(case)
    assert ours.lines() == stock.lines()
