"""Servers, TCP and Unix: each parameter and each end is what it is on stock asyncio.

What only one row of the table of features asks for is in features/.
"""

import asyncio
import contextlib
import os
import pathlib
import socket
import struct
import tempfile

import pytest
from network import until
from outcome import AwaitedCases, on_both
from setups import (
    LINUX,
    TIMEOUT,
    Accepted,
    Notes,
    address,
    ending,
    listening,
    open_sockets,
    refusal,
)

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = AwaitedCases()
case = CASES.awaited


# --- create_server

HOSTS = {
    "two": ["127.0.0.1", "127.0.0.2"],
    "tuple": ("127.0.0.3", "127.0.0.2"),
    "set": {"127.0.0.1"},
    "twice the same": ["127.0.0.1", "127.0.0.1"],
    "generator": (host for host in ()),
    "empty list": [],
    "empty name": "",
    "None": None,
    "one of them unknown": ["127.0.0.1", "no such host"],
    "one of them elsewhere": ["127.0.0.1", "192.0.2.1"],
    "number": 5,
    "numbers": [5],
    "bytes": b"127.0.0.1",
    "list of None": [None, "127.0.0.1"],
}


@case(*HOSTS)
async def hosts_to_serve(loop, name):
    before = open_sockets()
    try:
        server = await loop.create_server(Notes, HOSTS[name], 0)
    except Exception as error:
        return f"{type(error).__name__}: {error}", open_sockets() - before
    names = sorted((sock.family, sock.getsockname()[0]) for sock in server.sockets)
    server.close()
    return names, server.is_serving(), open_sockets() - before


OPTIONS = (
    {"reuse_address": None},
    {"reuse_address": True},
    {"reuse_address": False},
    {"reuse_port": True},
    {"reuse_port": False},
    {"reuse_port": None},
    {"keep_alive": True},
    {"keep_alive": None},
    {"family": socket.AF_INET},
    {"family": socket.AF_INET6},
    {"flags": socket.AI_NUMERICHOST},
    {"flags": 1 << 30},
    {"backlog": 7},
    {"backlog": 0},
    {"backlog": -1},
    {"backlog": 1 << 20},
    {"backlog": 1 << 40},
    {"backlog": None},
    {"start_serving": "yes"},
    {"nonsense": 1},
)


@case(*OPTIONS)
async def options_of_a_server(loop, options):
    try:
        server = await loop.create_server(Notes, "127.0.0.1", 0, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    server.close()
    taken = []
    server = await loop.create_server(lambda: Accepted(taken), "127.0.0.1", 0, **options)
    (sock,) = server.sockets
    seen = [
        sock.getsockopt(socket.SOL_SOCKET, getattr(socket, name)) != 0
        for name in ("SO_REUSEADDR", "SO_REUSEPORT", "SO_KEEPALIVE", "SO_ACCEPTCONN")
    ]
    if LINUX:
        # tcpi_sacked: of a socket that listens, how many may wait.
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        seen.append(struct.unpack_from("I", info, 28))
    # Not all of asyncio's servers accept any connection then.
    if options.get("backlog", 1) > 0:
        transport, protocol = await loop.create_connection(Notes, *sock.getsockname())
        await ending(transport, protocol)
        await until(lambda: taken and taken[0].lost.done())
    server.close()
    return seen


@case({"reuse_address": True}, {"reuse_port": True}, {"keep_alive": True}, {"nonsense": 1})
async def options_of_a_unix_server(loop, options):
    with tempfile.TemporaryDirectory() as folder:
        return await refusal(loop.create_unix_server(Notes, f"{folder}/socket", **options))


@case(True, False, since=(3, 13))
async def accepted_connections_keep_alive(loop, wanted):
    async with listening(1, keep_alive=wanted) as (_, (accepted,), _):
        sock = accepted.transport.get_extra_info("socket")
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0


@case(1, 2, 5)
async def more_than_the_backlog_at_once(loop, backlog):
    """All are served in the end; the order is the kernel's."""
    async with listening(0, backlog=backlog) as (server, taken, _):
        connecting = [loop.create_connection(Notes, *address(server)) for _ in range(backlog + 1)]
        clients = await asyncio.gather(*connecting)
        await until(lambda: len(taken) == backlog + 1)
        for transport, protocol in clients:
            await ending(transport, protocol)
        for each in taken:
            await each.lost
        return [each.events for each in taken]


@case(False, True)
async def same_port_again(loop, reuse_address):
    """While a connection of the last server lingers."""
    async with listening(1) as (server, (accepted,), ((_, client),)):
        where = address(server)
        server.close()
        accepted.transport.close()
        await client.lost
        await accepted.lost
        again = loop.create_server(Notes, *where, reuse_address=reuse_address)
        return await refusal(again)


# --- a server's life


@case()
async def life_of_a_server(loop):
    server = await loop.create_server(Notes, "127.0.0.1", 0, start_serving=False)
    sock = server.sockets[0]
    seen = [
        repr(server),
        server.is_serving(),
        type(server.sockets).__name__,
        type(sock).__name__,
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
        sock.gettimeout(),
        server.get_loop() is loop,
    ]
    for _ in range(2):
        seen.append((await server.start_serving(), server.is_serving()))
    seen.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    for _ in range(2):
        seen.append((server.close(), server.is_serving(), server.sockets))
    seen += [repr(server), sock.fileno()]
    for method in (server.start_serving, server.serve_forever):
        try:
            seen.append(await method())
        except RuntimeError as error:
            seen.append(str(error))
    seen.append(await server.wait_closed())
    return seen


@case(*["sendall", "accept", "close", "setblocking", "settimeout", "detach", "listen", "dup"])
async def what_a_servers_socket_offers(loop, method):
    async with listening(0) as (server, _, _):
        function = getattr(server.sockets[0], method)
        value = function(0) if method in ("setblocking", "settimeout") else function()
        with contextlib.suppress(AttributeError):
            value.close()
        return type(value).__name__


@case(0, 1)
async def waiting_for_the_end(loop, count):
    """From 3.12 on wait_closed() waits for the clients."""
    async with listening(count) as (server, taken, clients):
        early = asyncio.ensure_future(server.wait_closed())
        seen = [len((await asyncio.wait([early], timeout=0.02))[0])]
        server.close()
        waiting = [asyncio.ensure_future(server.wait_closed()) for _ in range(2)]
        waiting.append(early)
        cancelled = asyncio.ensure_future(server.wait_closed())
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        seen += [cancelled.cancelled(), len((await asyncio.wait(waiting, timeout=0.02))[0])]
        for transport, protocol in clients:
            await ending(transport, protocol)
        for each in taken:
            await each.lost
        return seen, [await each for each in waiting], await server.wait_closed()


@case()
async def async_with(loop):
    seen = []
    for fails in (False, True):
        try:
            async with await loop.create_server(Notes, "127.0.0.1", 0) as server:
                seen.append(server.is_serving())
                assert not fails, "in the block"
        except AssertionError as error:
            seen.append(str(error))
        seen += [server.is_serving(), server.sockets]
    return seen


@case("close", "cancel", "cancel before it starts", "in a block")
async def serving_for_ever(loop, way):
    async with listening(0, start_serving=False) as (server, _, _):
        serving = asyncio.ensure_future(server.serve_forever())
        if way != "cancel before it starts":
            await asyncio.sleep(0)
        seen = [server.is_serving()]
        if way == "close":
            server.close()
        elif way == "in a block":
            async with server:
                serving.cancel()
        else:
            serving.cancel()
        done, _ = await asyncio.wait([serving], timeout=TIMEOUT)
        seen += [len(done), serving.cancelled(), server.is_serving(), len(server.sockets)]
        return seen


@case("close", "cancel")
async def serving_for_ever_with_a_client(loop, way):
    async with listening(1) as (server, (accepted,), ((transport, client),)):
        serving = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        server.close() if way == "close" else serving.cancel()
        done, _ = await asyncio.wait([serving], timeout=0.05)
        seen = [len(done), accepted.transport.is_closing()]
        transport.close()
        await accepted.lost
        await client.lost
        await asyncio.wait([serving])
        return seen, serving.cancelled(), accepted.events


@case("close_clients", "abort_clients", since=(3, 13))
async def ending_clients(loop, method):
    """The one sends what was written, the other forgets it; the server goes on."""
    async with listening(2) as (server, taken, clients):
        for transport, _ in clients:
            transport.pause_reading()
        size = 8 << 20
        for each in taken:
            each.transport.write(bytes(size))
        seen = [getattr(server, method)(), server.is_serving()]
        seen += [each.transport.is_closing() for each in taken]
        for transport, _ in clients:
            transport.resume_reading()
        for each in [*taken, *(client for _, client in clients)]:
            await each.lost
        seen += [each.events for each in taken]
        seen += [len(client.data) == size for _, client in clients]
        transport, protocol = await loop.create_connection(Notes, *address(server))
        await until(lambda: len(taken) == 3)
        getattr(server, method)()
        await protocol.lost
        await taken[2].lost
        return seen, getattr(server, method)()


# --- Unix sockets


@case("str", "bytes", "Path", "relative", "abstract", "abstract bytes", "empty", needs=LINUX)
async def unix_paths(loop, kind):
    with tempfile.TemporaryDirectory() as folder:
        path = {
            "str": f"{folder}/socket",
            "bytes": f"{folder}/socket".encode(),
            "Path": pathlib.Path(folder) / "socket",
            "relative": os.path.relpath(f"{folder}/socket"),
            "abstract": f"\0ouroloop-{os.getpid()}",
            "abstract bytes": b"\0ouroloop-%d" % os.getpid(),
            "empty": "",
        }[kind]
        taken = []
        server = await loop.create_unix_server(lambda: Accepted(taken), path)
        name = address(server)
        seen = []
        if kind != "empty":
            transport, protocol = await loop.create_unix_connection(Notes, path)
            seen.append(transport.get_extra_info("peername") == name)
            await ending(transport, protocol)
            await until(lambda: taken and taken[0].lost.done())
            seen.append(taken[0].transport.get_extra_info("peername"))
        server.close()
        return seen, type(name).__name__, os.listdir(folder)


@case("left", "removed", "another's", "a file", "moved", since=(3, 13))
async def cleaning_up(loop, kind):
    """Only the socket that it made itself goes with the server."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "socket")
        server = await loop.create_unix_server(Notes, path, cleanup_socket=kind != "left")
        if kind in ("removed", "another's", "a file"):
            path.unlink()
        if kind == "another's":
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path))
        if kind == "a file":
            path.write_text("a file")
        if kind == "moved":
            path.rename(path.with_name("moved"))
        server.close()
        return sorted(os.listdir(folder))


@case()
async def unix_socket_left_by_another(loop):
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
        seen = [(await refusal(loop.create_unix_connection(Notes, path))).replace(folder, "")]
        seen.append(await refusal(loop.create_unix_server(Notes, path)))
        # And one that is in use, which is taken over alike.
        server = await loop.create_unix_server(Notes, path)
        seen.append(await refusal(loop.create_unix_server(Notes, path)))
        server.close()
        os.makedirs(f"{folder}/folder")
        for name in ("folder", "missing/socket"):
            answer = await refusal(loop.create_unix_server(Notes, f"{folder}/{name}"))
            seen.append(answer.replace(folder, ""))
        return seen


# --- streams


@case("function", "coroutine function", "fails", "coroutine fails", "leaves")
async def streams_callback(loop, kind):
    seen, tasks = [], []

    def function(reader, writer):
        seen.append((type(reader).__name__, type(writer).__name__))
        writer.write(b"hello")
        writer.close()

    async def coroutine_function(reader, writer):
        tasks.append(asyncio.current_task())
        function(reader, writer)

    def fails(reader, writer):
        writer.close()
        raise ZeroDivisionError("in the callback")

    async def coroutine_fails(reader, writer):
        tasks.append(asyncio.current_task())
        fails(reader, writer)

    async def leaves(reader, writer):
        tasks.append(asyncio.current_task())
        function(reader, writer)
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    callback = locals()[kind.replace(" ", "_")]
    server = await asyncio.start_server(callback, "127.0.0.1", 0, limit=100)
    reader, writer = await asyncio.open_connection(*address(server), limit=200)
    try:
        seen.append(await asyncio.wait_for(reader.read(), 0.5))
    except Exception as error:
        seen.append(f"{type(error).__name__}: {error}")
    writer.close()
    await asyncio.sleep(0.01)
    server.close()
    if tasks:
        await asyncio.wait(tasks)
    return seen, [task.cancelled() for task in tasks]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case):
    stock, ours = on_both(case)
    assert ours.lines() == stock.lines()
