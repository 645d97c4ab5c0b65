"""Signals, readers and writers, sock_* methods, sendfile, name lookups, and what a loop costs."""

import asyncio
import contextlib
import gc
import io
import os
import signal
import socket
import subprocess

from . import (
    at_least,
    client_context,
    connection,
    feature,
    raised,
    refused,
    server_context,
    serving,
)


def no_proc():
    return None if os.path.isdir("/proc/self/fd") else "descriptors are counted in /proc"


@contextlib.contextmanager
def pair(kind=socket.SOCK_STREAM, family=socket.AF_UNIX):
    a, b = socket.socketpair(family, kind)
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


@contextlib.contextmanager
def datagram_sockets():
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        for sock in (a, b):
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
        yield a, b


@feature("Python signal.signal handler runs promptly")
def python_handlers(loop):
    seen = []

    def handler(number, frame):
        seen.append(number)
        loop.call_soon_threadsafe(loop.stop)

    before = signal.signal(signal.SIGUSR1, handler)
    timer = loop.call_later(20, seen.append, "the loop woke up by itself")
    try:
        sender = subprocess.Popen(["sh", "-c", f"sleep 0.05; kill -USR1 {os.getpid()}"])
        loop.run_forever()
        assert sender.wait(20) == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
    timer.cancel()
    assert seen == [signal.SIGUSR1]


@feature("add/remove_signal_handler")
def signal_handlers(loop):
    seen = []

    async def main():
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, done.set_result, "first")
        os.kill(os.getpid(), signal.SIGUSR1)
        seen.append(await asyncio.wait_for(done, 10))
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, done.set_result, "second")
        os.kill(os.getpid(), signal.SIGUSR1)
        seen.append(await asyncio.wait_for(done, 10))
        seen.append(loop.remove_signal_handler(signal.SIGUSR1))
        seen.append(loop.remove_signal_handler(signal.SIGUSR1))

    async def nothing():
        pass

    loop.run_until_complete(main())
    assert seen == ["first", "second", True, False]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    for number, handler in (
        (signal.SIGKILL, print),
        (1000, print),
        ("x", print),
        (signal.SIGUSR1, nothing),
    ):
        seen.append(refused(loop.add_signal_handler, number, handler))
    loop.add_signal_handler(signal.SIGCHLD, print)
    seen.append(loop.remove_signal_handler(signal.SIGCHLD))
    return seen


@feature("wakeup_fd restored on close")
def wakeup_descriptor(loop):
    with pair() as (a, b):
        loop.add_signal_handler(signal.SIGUSR1, print)
        loop.run_until_complete(asyncio.sleep(0))
        loop.remove_signal_handler(signal.SIGUSR1)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert signal.set_wakeup_fd(a.fileno(), warn_on_full_buffer=False) == -1
        assert signal.set_wakeup_fd(-1) == a.fileno()
        assert b.fileno() > 0


@feature("add_reader(sock object)")
def readers_and_writers(loop):
    seen = []

    async def main():
        with pair() as (a, b):
            done = loop.create_future()

            def ready(sock):
                seen.append(sock.recv(100))
                seen.append(loop.remove_reader(sock))
                done.set_result(None)

            loop.add_reader(a, print)
            loop.add_reader(a.fileno(), ready, a)
            writable = loop.create_future()
            loop.add_writer(a, lambda: (loop.remove_writer(a), writable.set_result(None)))
            await asyncio.wait_for(writable, 10)
            b.send(b"hello")
            await asyncio.wait_for(done, 10)
            seen.append((loop.remove_reader(a), loop.remove_writer(a)))
            loop.add_reader(a, print)
        # A closed file object can still be removed.
        seen.append(loop.remove_reader(a))
        seen.append(refused(loop.add_reader, "x", print))
        seen.append(refused(loop.add_reader, -1, print))

    loop.run_until_complete(main())
    assert seen[:4] == [b"hello", True, (False, False), True]
    return seen


@connection("add_reader on a transport's fd -> RuntimeError")
async def readers_of_transports(loop):
    with pair() as (a, b):
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
        seen = [
            refused(method, a.fileno(), *arguments)
            for method, arguments in (
                (loop.add_reader, (print,)),
                (loop.add_writer, (print,)),
                (loop.remove_reader, ()),
                (loop.remove_writer, ()),
            )
        ]
        with b:
            transport.abort()
            await asyncio.sleep(0.01)
    assert all("is used by transport" in text for text in seen)
    return [text.partition("File descriptor")[0] for text in seen]


@connection("sock_recv/recv_into/sendall/connect/accept")
async def stream_sockets(loop):
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await asyncio.sleep(0)
        await loop.sock_connect(client, listener.getsockname())
        server, peer = await accepting
        assert peer == client.getsockname()
        assert not server.getblocking()
        with server:
            waiting = asyncio.ensure_future(loop.sock_recv(server, 100))
            await asyncio.sleep(0.01)
            await loop.sock_sendall(client, b"hello")
            seen.append(await waiting)
            buffer = bytearray(10)
            waiting = asyncio.ensure_future(loop.sock_recv_into(server, buffer))
            await asyncio.sleep(0)
            await loop.sock_sendall(client, memoryview(b"again"))
            seen.append((await waiting, bytes(buffer)))
            large = b"x" * 5_000_000
            sending = asyncio.ensure_future(loop.sock_sendall(client, large))
            size = 0
            while size < len(large):
                size += len(await loop.sock_recv(server, 1 << 16))
            seen.append((await sending, size))
            waiting = asyncio.ensure_future(loop.sock_recv(server, 100))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            await loop.sock_sendall(client, b"not lost")
            seen.append(await loop.sock_recv(server, 100))
            client.close()
            seen.append(await loop.sock_recv(server, 100))
    assert seen[:2] == [b"hello", (5, b"again\0\0\0\0\0")]
    assert seen[3:] == [b"not lost", b""]
    with socket.socket() as blocking:
        loop.set_debug(True)
        seen.append(await raised(loop.sock_recv(blocking, 1)))
        loop.set_debug(False)
        blocking.setblocking(False)
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            seen.append((await raised(loop.sock_connect(blocking, nobody.getsockname())))[:22])
    return seen


@connection("sock_recvfrom/recvfrom_into/sendto", since=(3, 11))
async def datagram_methods(loop):
    with datagram_sockets() as (a, b):
        assert await loop.sock_sendto(a, b"hello", b.getsockname()) == 5
        assert await loop.sock_recvfrom(b, 100) == (b"hello", a.getsockname())
        assert await loop.sock_sendto(a, b"", b.getsockname()) == 0
        assert await loop.sock_recvfrom(b, 100) == (b"", a.getsockname())
        buffer = bytearray(10)
        receiving = asyncio.ensure_future(loop.sock_recvfrom_into(b, buffer))
        await asyncio.sleep(0)
        await loop.sock_sendto(a, b"again", b.getsockname())
        assert await receiving == (5, a.getsockname())
        assert buffer[:5] == b"again"
        await loop.sock_sendto(a, b"short", b.getsockname())
        assert (await loop.sock_recvfrom_into(b, buffer, 2))[0] == 2
        assert buffer[:3] == b"sha"[:2] + b"a"
        return await raised(loop.sock_sendto(a, b"x" * 100_000, b.getsockname()))


CONTENT = bytes(range(250)) * 4000


@connection("sock_sendfile / sendfile (tcp, tls fallback)")
async def files_through_sockets(loop, folder):
    path = folder / "file"
    path.write_bytes(CONTENT)
    with pair() as (a, b), open(path, "rb") as file:
        sending = asyncio.ensure_future(loop.sock_sendfile(a, file, 10, 5000))
        received = b""
        while len(received) < 5000:
            received += await loop.sock_recv(b, 1 << 16)
        assert await sending == 5000
        assert received == CONTENT[10:5010]
        assert file.tell() == 5010
        seen = [await raised(loop.sock_sendfile(a, io.StringIO("x")))]
        seen.append(await raised(loop.sock_sendfile(a, file, -1)))
        seen.append(await raised(loop.sock_sendfile(a, io.BytesIO(b"x"), fallback=False)))
        seen.append(await loop.sock_sendfile(a, io.BytesIO(b"xyz")))
    return seen


@connection("sock_sendfile / sendfile (tcp, tls fallback)")
async def files_through_transports(loop, folder):
    path = folder / "file"
    path.write_bytes(CONTENT)
    seen = []
    for server_tls, client_tls in ((None, None), (server_context(), client_context())):
        got = asyncio.Queue()

        async def handle(reader, writer, got=got):
            await got.put(await reader.read())
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_tls)
        async with serving(server) as where:
            transport, _ = await loop.create_connection(asyncio.Protocol, *where, ssl=client_tls)
            transport.write(b"before ")
            with open(path, "rb") as file:
                seen.append(await loop.sendfile(transport, file))
                seen.append(await loop.sendfile(transport, file, 100, 50))
                assert file.tell() == 150
                seen.append(await loop.sendfile(transport, io.BytesIO(b" after"), fallback=True))
                if client_tls is None:
                    sent = await raised(loop.sendfile(transport, io.BytesIO(b""), fallback=False))
                else:
                    sent = await raised(loop.sendfile(transport, file, fallback=False))
                seen.append(sent)
            transport.close()
            seen.append(await raised(loop.sendfile(transport, io.BytesIO(b"x"))))
            assert await got.get() == b"before " + CONTENT + CONTENT[100:150] + b" after"
    return seen


@connection("getaddrinfo/getnameinfo")
async def names(loop):
    seen = [
        await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM),
        await loop.getaddrinfo("::1", "80", type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP),
        await loop.getaddrinfo(None, 0, flags=socket.AI_PASSIVE, type=socket.SOCK_DGRAM),
        sorted(await loop.getaddrinfo("localhost", 1, family=socket.AF_INET)),
        await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
        await raised(loop.getaddrinfo("127.0.0.1", "no such service")),
        await raised(loop.getaddrinfo("127.0.0.1", 1, family=12345)),
        await raised(loop.getnameinfo(("not a number", 80))),
    ]
    assert seen[4] == ("127.0.0.1", "80")
    return seen


@feature("fds per loop; after 20 loops closed", needs=no_proc)
def descriptors_of_loops(loop):
    def one():
        new = type(loop)()
        new.run_until_complete(asyncio.sleep(0))
        new.close()

    one()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        one()
    assert len(os.listdir("/proc/self/fd")) == before


@feature("create/run/close a loop, many times")
def loops_come_and_go(loop):
    total = 0
    for n in range(200):
        new = type(loop)()
        total += new.run_until_complete(asyncio.sleep(0, n))
        new.close()
        assert new.is_closed()
    assert total == 19900


@feature("EventLoopPolicy / install() / run()")
def policies(loop):
    """The stock half of it; policies.py of the isolated tests has ours."""

    async def main():
        return type(asyncio.get_running_loop()) is type(loop)

    if at_least(3, 12):
        assert asyncio.run(main(), loop_factory=type(loop)) is True
    if at_least(3, 11):
        with asyncio.Runner(loop_factory=type(loop)) as runner:
            assert runner.run(main()) is True
            assert type(runner.get_loop()) is type(loop)
    assert loop.run_until_complete(main()) is True
