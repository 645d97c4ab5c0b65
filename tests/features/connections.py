"""TCP and Unix connections: setting them up, serving them, and what transports promise."""

import asyncio
import contextlib
import contextvars
import os
import socket
import sys
import weakref

from network import turns
from setups import Notes

from . import address, at_least, connection, echo, feature, raised, refused, serving


@contextlib.asynccontextmanager
async def connected(factory=Notes):
    """A transport, its protocol, and the plain socket at the other end."""
    loop = asyncio.get_running_loop()
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    with peer:
        transport, protocol = await loop.create_connection(factory, sock=ours)
        try:
            yield transport, protocol, peer
        finally:
            transport.abort()
            if isinstance(protocol, Notes):
                await protocol.lost


@connection("protocol callback raises -> fatal, connection_lost(exc)")
async def failing_callbacks(loop):
    seen, reports = [], []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    class Fails(Notes):
        def data_received(self, data):
            raise ZeroDivisionError("in data_received")

    class FailsAtEof(Notes):
        def eof_received(self):
            raise ZeroDivisionError("in eof_received")

    for protocol in (Fails, FailsAtEof):
        async with connected(protocol) as (transport, protocol, peer):
            peer.send(b"x")
            peer.shutdown(socket.SHUT_WR)
            seen.append(repr(await asyncio.wait_for(protocol.lost, 10)))
            assert transport.is_closing()
    assert seen == ["ZeroDivisionError('in data_received')", "ZeroDivisionError('in eof_received')"]
    return [(report["message"], sorted(report)) for report in reports]


@connection("create_connection host/port/local_addr")
async def local_addresses(loop):
    async with serving(await asyncio.start_server(echo, "127.0.0.1", 0)) as where:
        transport, protocol = await loop.create_connection(
            Notes, *where, local_addr=("127.0.0.2", 0), family=socket.AF_INET
        )
        assert transport.get_extra_info("sockname")[0] == "127.0.0.2"
        assert transport.get_extra_info("peername") == where
        transport.write(b"hello")
        await protocol.received()
        # A timer and not wait_closed(): the transport is to see the end by itself.
        transport.close()
        assert await protocol.lost is None
        assert protocol.data == b"hello"
    refusals = [
        await raised(loop.create_connection(Notes, *where)),
        await raised(loop.create_connection(Notes, *where, local_addr=("192.0.2.1", 0))),
        await raised(loop.create_connection(Notes)),
        await raised(loop.create_connection(Notes, "127.0.0.1", 1, sock=3)),
        await raised(loop.create_connection(Notes, *where, server_hostname="x")),
    ]
    return [text.replace(str(where[1]), "PORT") for text in refusals]


@connection("happy_eyeballs_delay, interleave, all_errors")
async def happy_eyeballs(loop):
    async with serving(await asyncio.start_server(echo, "127.0.0.1", 0)) as where:

        async def getaddrinfo(host, port, **options):
            kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [
                (socket.AF_INET, *kind, ("127.0.0.2", where[1])),
                (socket.AF_INET, *kind, where),
                (socket.AF_INET6, *kind, ("::1", where[1], 0, 0)),
            ]

        loop.getaddrinfo = getaddrinfo
        for options in (
            {},
            {"happy_eyeballs_delay": 0.05},
            {"happy_eyeballs_delay": None, "interleave": 1},
            {"happy_eyeballs_delay": 0.05, "interleave": 2},
        ):
            transport, protocol = await loop.create_connection(Notes, "any", 1, **options)
            assert transport.get_extra_info("peername") == where
            transport.close()
            await protocol.lost
        del loop.getaddrinfo
    if not at_least(3, 12):
        return None
    try:
        await loop.create_connection(Notes, *where, all_errors=True)
    except ExceptionGroup as group:  # noqa: F821 - from 3.11 on
        return [type(error).__name__ for error in group.exceptions]
    raise AssertionError("it connected")


@connection("create_connection(sock=unix socketpair)")
async def given_sockets(loop):
    async with connected() as (transport, protocol, peer):
        transport.write(b"out")
        assert await loop.sock_recv(peer, 10) == b"out"
        peer.send(b"in")
        await protocol.received()
        assert protocol.data == b"in"
        assert transport.get_extra_info("socket").family == socket.AF_UNIX
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        return (await raised(loop.create_connection(Notes, sock=sock))).partition("<")[0]


@connection("create_connection(sock=unix socketpair)")
async def data_comes_after_create_connection_returned(loop):
    """The waiter of create_connection goes on before the first data_received."""

    async def greet(reader, writer):
        writer.write(b"welcome")
        await reader.read()
        writer.close()

    async with serving(await asyncio.start_server(greet, "127.0.0.1", 0)) as where:
        for _ in range(50):
            transport, protocol = await loop.create_connection(Notes, *where)
            protocol.events.append("connected")
            await protocol.received()
            assert protocol.events == ["made", "connected", "data"]
            transport.close()
            await protocol.lost


@connection("create_server: multi host, backlog, start_serving, reuse_port")
async def servers(loop):
    server = await loop.create_server(
        Notes, ["127.0.0.1", "127.0.0.2"], 0, backlog=5, start_serving=False, reuse_port=True
    )
    assert not server.is_serving()
    assert len(server.sockets) == 2
    assert sorted(sock.getsockname()[0] for sock in server.sockets) == ["127.0.0.1", "127.0.0.2"]
    assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for sock in server.sockets)
    where = address(server)
    seen = [await raised(loop.create_connection(Notes, *where))]
    await server.start_serving()
    assert server.is_serving()
    # Another one on the same port, and one on a port that is taken.
    other = await loop.create_server(Notes, *where, reuse_port=True)
    seen.append(await raised(loop.create_server(Notes, *where)))
    transport, protocol = await loop.create_connection(Notes, *where)
    transport.close()
    await protocol.lost
    for each in (server, other):
        each.close()
        await each.wait_closed()
        assert each.sockets == ()
        assert not each.is_serving()
    seen.append(await raised(loop.create_server(Notes)))
    seen.append(await raised(server.serve_forever()))
    return [text.replace(str(where[1]), "PORT").partition("<")[0] for text in seen]


@connection("create_server: multi host, backlog, start_serving, reuse_port")
async def serve_forever_is_cancelled(loop):
    server = await asyncio.start_server(echo, "127.0.0.1", 0, start_serving=False)
    where = address(server)
    serving = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    reader, writer = await asyncio.open_connection(*where)
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    seen = []
    try:
        await server.serve_forever()
    except RuntimeError as error:
        seen.append(str(error).partition("<")[0])
    serving.cancel()
    # Whether it waits for its clients, or ends them, depends on the version.
    await turns(10)
    seen.append(serving.done())
    writer.close()
    await writer.wait_closed()
    await asyncio.wait([serving])
    assert serving.cancelled()
    assert not server.is_serving()
    return seen


@connection("create_server(keep_alive=)", since=(3, 13))
async def keep_alive(loop):
    for wanted in (True, False):
        server = await loop.create_server(Notes, "127.0.0.1", 0, keep_alive=wanted)
        async with serving(server):
            option = server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert bool(option) is wanted


async def one_client(loop):
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    transport, protocol = await loop.create_connection(Notes, *address(server))
    transport.write(b"x")
    await protocol.received()
    return server, transport, protocol


@connection("Server.close_clients / abort_clients", since=(3, 13))
async def ending_clients(loop):
    seen = []
    for method in ("close_clients", "abort_clients"):
        server, _, protocol = await one_client(loop)
        server.close()
        getattr(server, method)()
        await asyncio.wait_for(server.wait_closed(), 10)
        seen.append(type(await asyncio.wait_for(protocol.lost, 10)).__name__)
    return seen


@connection("Server.wait_closed waits for clients", since=(3, 12))
async def wait_closed(loop):
    server, transport, protocol = await one_client(loop)
    server.close()
    waiter = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0.05)
    assert not waiter.done()
    transport.close()
    await asyncio.wait_for(waiter, 10)
    await protocol.lost


@connection("Server isinstance AbstractServer")
async def server_type(loop):
    server = await loop.create_server(Notes, "127.0.0.1", 0)
    async with serving(server), server as entered:
        assert entered is server
        assert isinstance(server, asyncio.AbstractServer)
        assert isinstance(server, asyncio.Server)
        assert server.get_loop() is loop
        assert type(server.sockets[0]).__name__ == "TransportSocket"


@connection("isinstance(t, asyncio.Transport / DatagramTransport)")
async def transport_types(loop):
    async with connected() as (transport, _, _):
        assert isinstance(transport, asyncio.Transport)
        assert not isinstance(transport, asyncio.DatagramTransport)
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    assert isinstance(transport, asyncio.BaseTransport)
    if at_least(3, 12):  # only ouroloop's is one before
        assert isinstance(transport, asyncio.DatagramTransport)
    transport.close()
    await asyncio.sleep(0.01)


@connection("weakref(transport)")
async def weak_references(loop):
    async with connected() as (transport, _, _):
        assert weakref.ref(transport)() is transport


@connection("write limits default (low, high)")
async def write_limits(loop):
    async with connected() as (transport, _, _):
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        seen = []
        for options in ({"high": 1000}, {"low": 10}, {"high": 0}, {"high": 5, "low": 3}, {}):
            transport.set_write_buffer_limits(**options)
            seen.append(transport.get_write_buffer_limits())
        seen.append(refused(transport.set_write_buffer_limits, high=1, low=2))
        seen.append(refused(transport.set_write_buffer_limits, high=-1, low=-2))
    return seen


@connection("write(None) -> TypeError")
async def wrong_writes(loop):
    async with connected() as (transport, _, peer):
        seen = [refused(transport.write, value) for value in (None, "text", 3, [b"x"])]
        seen += [refused(transport.writelines, value) for value in (3, ["text"])]
        assert all(text.startswith("TypeError: ") for text in seen)
        for value in (b"a", bytearray(b"b"), memoryview(b"c"), b""):
            transport.write(value)
        transport.writelines([b"d", bytearray(b"e"), memoryview(b"f")])
        assert await loop.sock_recv(peer, 100) == b"abcdef"
    # The text of the message names the type of what was given, on each version in its own way.
    return [text.partition(":")[0] for text in seen]


@connection("write after connection lost warns")
async def writes_to_nobody(loop):
    import logging

    records = []
    catcher = logging.Handler()
    catcher.emit = lambda record: records.append(f"{record.levelname} {record.getMessage()}")
    logger = logging.getLogger("asyncio")
    logger.addHandler(catcher)
    try:
        async with connected() as (transport, protocol, _):
            transport.abort()
            await protocol.lost
            for _ in range(7):
                transport.write(b"x")
    finally:
        logger.removeHandler(catcher)
    assert set(records) == {"WARNING socket.send() raised exception."}
    return records


@connection("write_eof half close -> connection_lost")
async def half_close(loop):
    async def answer_at_the_end(reader, writer):
        data = await reader.read()
        writer.write(b"%d bytes" % len(data))
        writer.close()

    async with serving(await asyncio.start_server(answer_at_the_end, "127.0.0.1", 0)) as where:
        transport, protocol = await loop.create_connection(Notes, *where)
        assert transport.can_write_eof()
        transport.write(b"x" * 3_000_000)
        transport.write_eof()
        seen = [refused(transport.write, b"more")]
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.data == b"3000000 bytes"
        assert protocol.events[-2:] == ["eof", "lost NoneType"]
    return seen


@connection("set_protocol")
async def protocols_change(loop):
    async with connected() as (transport, first, peer):
        second = Notes()
        peer.send(b"one")
        await first.received()
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        peer.send(b"two")
        await second.received()
        assert (first.data, second.data) == (b"one", b"two")
        transport.close()
        await second.lost
        assert not first.lost.done()
        first.lost.set_result(None)
    return first.events, second.events


@connection("get_extra_info socket type")
async def extra_info(loop):
    async with connected() as (transport, _, _):
        sock = transport.get_extra_info("socket")
        assert type(sock).__name__ == "TransportSocket"
        assert sock.fileno() > 0
        assert transport.get_extra_info("nothing", "default") == "default"
        return [
            sock.family,
            sock.type,
            sock.proto,
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE),
            transport.get_extra_info("peername"),
            transport.get_extra_info("sslcontext"),
            # Before 3.11 it still could, with a warning.
            not at_least(3, 11) or refused(getattr, sock, "recv"),
        ]


@connection("connect_accepted_socket")
async def accepted_sockets(loop):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        sock, _ = await loop.sock_accept(listener)
        transport, protocol = await loop.connect_accepted_socket(Notes, sock)
        await loop.sock_sendall(client, b"hello")
        await protocol.received()
        transport.write(b"answer")
        assert await loop.sock_recv(client, 10) == b"answer"
        client.close()
        assert await protocol.lost is None
    with socket.socket(type=socket.SOCK_DGRAM) as wrong:
        seen = (await raised(loop.connect_accepted_socket(Notes, wrong))).partition("<")[0]
    return protocol.events, seen


class Buffered(asyncio.BufferedProtocol):
    """Keeps the sizes that it is asked for."""

    def __init__(self):
        self.buffer = bytearray(1000)
        self.data = b""
        self.hints = set()
        self.lost = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint):
        self.hints.add(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data += self.buffer[:nbytes]

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@connection("BufferedProtocol tcp / tls (sizehint)")
async def buffered_over_tcp(loop):
    async def send(reader, writer):
        writer.write(bytes(range(250)) * 100)
        writer.close()

    async with serving(await asyncio.start_server(send, "127.0.0.1", 0)) as where:
        _, protocol = await loop.create_connection(Buffered, *where)
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.data == bytes(range(250)) * 100
        assert protocol.hints == {-1}


@connection("unix client/server; cleanup_socket")
async def unix_sockets(loop, folder):
    path = folder / "socket"
    server = await asyncio.start_unix_server(echo, path)
    reader, writer = await asyncio.open_unix_connection(path)
    assert writer.get_extra_info("peername") == str(path)
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    seen = [path.exists()]
    if at_least(3, 13):
        assert not path.exists()
        server = await asyncio.start_unix_server(echo, path, cleanup_socket=False)
        server.close()
        assert path.exists()
        # A left-over socket is no obstacle; any other file is.
        server = await asyncio.start_unix_server(echo, path)
        server.close()
    path.unlink(missing_ok=True)
    seen.append(await raised(loop.create_unix_connection(Notes, path)))
    path.write_text("a file")
    seen.append(await raised(loop.create_unix_server(Notes, path)))
    seen.append(await raised(loop.create_unix_connection(Notes)))
    return [text if isinstance(text, bool) else text.replace(str(folder), "") for text in seen]


def not_linux():
    return None if sys.platform.startswith("linux") else "abstract names are Linux's"


@connection("unix abstract `\\0name`", needs=not_linux)
async def abstract_names(loop):
    name = f"\0ouroloop-{os.getpid()}"
    async with serving(await loop.create_unix_server(Notes, name)):
        transport, protocol = await loop.create_unix_connection(Notes, name)
        assert transport.get_extra_info("peername") == name.encode()
        transport.close()
        await protocol.lost


VARIABLE = contextvars.ContextVar("VARIABLE", default="none")


class Sees(Notes):
    """Writes down the context of each call."""

    def __init__(self):
        super().__init__()
        self.contexts = [("created", VARIABLE.get())]

    def connection_made(self, transport):
        self.contexts.append(("made", VARIABLE.get()))
        super().connection_made(transport)

    def data_received(self, data):
        self.contexts.append(("data", VARIABLE.get()))
        super().data_received(data)

    def eof_received(self):
        self.contexts.append(("eof", VARIABLE.get()))

    def connection_lost(self, exc):
        self.contexts.append(("lost", VARIABLE.get()))
        super().connection_lost(exc)


@connection("contextvars in protocol callbacks, client")
async def contexts_of_clients(loop):
    async def connect(sock):
        VARIABLE.set("creator")
        return await loop.create_connection(Sees, sock=sock)

    seen = []
    VARIABLE.set("main")
    for closes in ("we", "they"):
        a, b = socket.socketpair()
        with b:
            transport, protocol = await asyncio.create_task(connect(a))
            b.send(b"x")
            await protocol.received()
            if closes == "we":
                transport.close()
            else:
                b.shutdown(socket.SHUT_WR)
            await protocol.lost
        seen.append(protocol.contexts)
    assert ("data", "creator") in seen[0]
    assert ("eof", "creator") in seen[1]
    return seen


@connection("same, server (captured at create_server from 3.15 on)")
async def contexts_of_servers(loop):
    made = []

    def factory():
        made.append(Sees())
        return made[-1]

    async def create():
        VARIABLE.set("creator")
        return await loop.create_server(factory, "127.0.0.1", 0)

    VARIABLE.set("main")
    async with serving(await asyncio.create_task(create())) as where:
        for _ in range(2):
            _, writer = await asyncio.open_connection(*where)
            writer.write(b"x")
            writer.close()
            await writer.wait_closed()
        while len(made) < 2 or not all(protocol.lost.done() for protocol in made):
            await asyncio.sleep(0.001)
    return [protocol.contexts for protocol in made]


@feature("streams: open_connection, start_server")
def streams(loop):
    async def main():
        async with serving(await asyncio.start_server(echo, "127.0.0.1", 0)) as where:
            reader, writer = await asyncio.open_connection(*where)
            for size in (1, 100, 10_000, 1_000_000):
                writer.write(b"x" * size)
                await writer.drain()
                assert await reader.readexactly(size) == b"x" * size
            writer.writelines([b"one\n", b"two", b"\nthree|"])
            seen = [await reader.readline(), await reader.readuntil(b"\n")]
            seen.append(await reader.readuntil(b"|"))
            writer.write_eof()
            seen += [await reader.read(), reader.at_eof()]
            try:
                await reader.readexactly(3)
            except asyncio.IncompleteReadError as error:
                seen.append((error.partial, error.expected))
            writer.close()
            await writer.wait_closed()
            return seen

    return loop.run_until_complete(asyncio.wait_for(main(), 30))
