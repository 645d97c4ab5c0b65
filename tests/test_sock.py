"""csrc/sock.c: receiving, sending, accepting and connecting, mostly beside stock asyncio.

Other kinds of sockets are in test_sock_kinds.py, files in test_sock_sendfile.py, what is given up
in test_sock_cancel.py, and the calls as objects in test_sock_call.py.
"""

import array
import asyncio
import contextlib
import inspect
import os
import random
import socket
import sys
import tempfile

import ouroloop
import pytest
from network import settle
from outcome import Cases, on_both, with_pair
from plain_sockets import CALLS, LARGE, datagram, listening

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each


# --- receiving


@case
def receive_at_once(loop):
    def test(a, b):
        b.send(b"hello")
        return loop.run_until_complete(loop.sock_recv(a, 3))

    return with_pair(test)


@cases(1, 4096, 4097, 65536, 1 << 20)
def receive_later(loop, size):
    def test(a, b):
        async def main():
            task = loop.create_task(loop.sock_recv(a, size))
            await settle()
            assert not task.done()
            b.send(b"hello")
            first = await task
            return first, type(first), await loop.sock_recv(a, 9) if size == 1 else b""

        return loop.run_until_complete(main())

    return with_pair(test)


@cases(0, -1, 1.5, "1", None, True, 2**80)
def receive_odd_sizes(loop, size):
    def test(a, b):
        b.send(b"hello")
        return loop.run_until_complete(loop.sock_recv(a, size))

    return with_pair(test)


@cases(
    b"fixed",
    bytearray(),
    bytearray(3),
    bytearray(10),
    memoryview(bytearray(8))[::2],
    "text",
    None,
    array.array("i", [0, 0]),
)
def receive_into(loop, buffer):
    def test(a, b):
        async def main():
            task = loop.create_task(loop.sock_recv_into(a, buffer))
            await settle()
            b.send(b"hello")
            return await task, bytes(buffer)

        return loop.run_until_complete(main())

    return with_pair(test)


@case
def receive_at_the_end(loop):
    def test(a, b):
        async def main():
            task = loop.create_task(loop.sock_recv(a, 9))
            await settle()
            b.close()
            return (
                await task,
                await loop.sock_recv(a, 9),
                await loop.sock_recv_into(a, bytearray(1)),
            )

        return loop.run_until_complete(main())

    return with_pair(test)


@case
def a_reset_connection(loop):
    async def main():
        with listening() as listener, socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, listener.getsockname())
            server, _ = await loop.sock_accept(listener)
            with server:
                task = loop.create_task(loop.sock_recv(client, 9))
                await settle()
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await task

    return loop.run_until_complete(main())


@case
def a_buffer_may_change_its_size_meanwhile(loop):
    def test(a, b):
        async def main():
            buffer = bytearray(1)
            task = loop.create_task(loop.sock_recv_into(a, buffer))
            await settle()
            buffer.extend(b"123")
            b.send(b"hello")
            return await task, buffer

        return loop.run_until_complete(main())

    return with_pair(test)


# --- sending


@cases(
    b"",
    b"hello",
    bytearray(b"hello"),
    memoryview(b"hello"),
    "text",
    None,
    5,
    memoryview(b"abcdef")[::2],
)
def send(loop, data):
    def test(a, b):
        sent = loop.run_until_complete(loop.sock_sendall(a, data))
        return sent, b.recv(99) if data else None

    return with_pair(test)


@cases(bytes, bytearray, memoryview)
def send_much(loop, kind):
    """More than the kernel takes at once."""
    data = bytes(range(256)) * (LARGE // 256)

    def test(a, b):
        async def main():
            task = loop.create_task(loop.sock_sendall(a, kind(data)))
            await settle()
            assert not task.done()
            received = bytearray()
            while len(received) < LARGE:
                received += await loop.sock_recv(b, 1 << 20)
            return await task, received == data

        return loop.run_until_complete(main())

    return with_pair(test)


@case
def a_buffer_that_is_being_sent_keeps_its_size(loop):
    def test(a, b):
        async def main():
            data = bytearray(LARGE)
            task = loop.create_task(loop.sock_sendall(a, data))
            await settle()
            try:
                data.append(1)
            except BufferError as error:
                text = str(error)
            task.cancel()
            await settle()
            data.append(1)
            return text, len(data)

        return loop.run_until_complete(main())

    return with_pair(test)


@cases("send", "wait")
def send_to_nobody(loop, when):
    def test(a, b):
        async def main():
            if when == "send":
                b.close()
            task = loop.create_task(loop.sock_sendall(a, bytes(LARGE)))
            await settle()
            b.close()
            await task

        return loop.run_until_complete(main())

    return with_pair(test)


# --- accepting and connecting


@case
def accept_at_once_and_later(loop):
    async def main():
        with listening() as listener:
            address = listener.getsockname()
            found = []
            for wait in (False, True):
                task = loop.create_task(loop.sock_accept(listener))
                if wait:
                    await settle()
                with socket.create_connection(address) as client:
                    connection, peer = await task
                    with connection:
                        found += [
                            type(connection),
                            peer == client.getsockname(),
                            connection.gettimeout(),
                            connection.get_inheritable(),
                        ]
            return found

    return loop.run_until_complete(main())


@cases("127.0.0.1", "localhost", "::1", "no such host.invalid", "")
def connect(loop, host):
    async def main():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with listening(family) as listener, socket.socket(family) as client:
            client.setblocking(False)
            result = await loop.sock_connect(client, (host, listener.getsockname()[1]))
            return result, client.getpeername() == listener.getsockname()

    return loop.run_until_complete(main())


@cases(1, (), ("127.0.0.1",), ("127.0.0.1", "no such service"), ("127.0.0.1", 2**20), (None, 1))
def connect_to_odd_addresses(loop, address):
    with socket.socket() as client:
        client.setblocking(False)
        return loop.run_until_complete(loop.sock_connect(client, address))


@case
def connect_refused(loop):
    with socket.socket() as taken, socket.socket() as client:
        taken.bind(("127.0.0.1", 0))
        client.setblocking(False)
        return loop.run_until_complete(loop.sock_connect(client, taken.getsockname()))


@cases("path", "abstract", "missing", "bytes")
def connect_to_a_unix_socket(loop, kind):
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/socket"
        name = f"\0ouroloop{os.getpid()}" if kind == "abstract" else path
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            if kind != "missing":
                listener.bind(name)
                listener.listen()
            address = os.fsencode(name) if kind == "bytes" else name
            try:
                result = loop.run_until_complete(loop.sock_connect(client, address))
                return result, client.getpeername() == listener.getsockname()
            except OSError as error:
                return type(error), error.errno


@case
def connect_twice(loop):
    async def main():
        with listening() as listener, socket.socket() as client:
            client.setblocking(False)
            address = listener.getsockname()
            results = [await loop.sock_connect(client, address) for _ in range(2)]
            return results, client.getpeername() == address

    return loop.run_until_complete(main())


@case
def connecting_begins_at_once(loop):
    async def main():
        with listening() as listener, socket.socket() as client:
            client.setblocking(False)
            call = loop.sock_connect(client, listener.getsockname())
            try:
                waits_for = type(call.send(None)).__name__
            except StopIteration:
                waits_for = "nothing"
            connection, _ = await loop.sock_accept(listener)
            connection.close()
            call.close()
            return waits_for in ("nothing", "Future")

    return loop.run_until_complete(main())


# --- datagrams


@case
def datagrams(loop):
    if sys.version_info < (3, 11):
        return "absent"

    async def main():
        with datagram() as a, datagram() as b:
            task = loop.create_task(loop.sock_recvfrom(b, 3))
            await settle()
            found = [await loop.sock_sendto(a, b"hello", b.getsockname())]
            found.append(await task == (b"hel", a.getsockname()))
            await loop.sock_sendto(a, b"", b.getsockname())
            found.append((await loop.sock_recvfrom(b, 9))[0])
            for nbytes in ((), (0,), (2,), (99,)):
                buffer = bytearray(4)
                task = loop.create_task(loop.sock_recvfrom_into(b, buffer, *nbytes))
                await settle()
                await loop.sock_sendto(a, b"abc", b.getsockname())
                try:
                    found += [(await task)[0], buffer]
                except ValueError as error:
                    found.append(str(error))
            return found

    return loop.run_until_complete(main())


@cases(("127.0.0.1", 2**20), ("nowhere.invalid", 1), None, (), ("127.0.0.1",))
def datagrams_to_odd_addresses(loop, address):
    if sys.version_info < (3, 11):
        return "absent"
    with datagram() as sock:
        return loop.run_until_complete(loop.sock_sendto(sock, b"x", address))


@case
def a_datagram_that_is_too_long(loop):
    if sys.version_info < (3, 11):
        return "absent"
    with datagram() as a, datagram() as b:
        return loop.run_until_complete(loop.sock_sendto(a, bytes(1 << 17), b.getsockname()))


@case
def a_datagram_that_was_refused(loop):
    if sys.version_info < (3, 11):
        return "absent"

    async def main():
        with datagram() as a:
            with datagram() as b:
                a.connect(b.getsockname())
                task = loop.create_task(loop.sock_recvfrom(a, 9))
                await settle()
            a.send(b"x")
            await task

    return loop.run_until_complete(main())


# --- arguments, and a closed loop


@cases(
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendto",
    "sock_sendall",
    "sock_accept",
    "sock_connect",
)
def wrong_arguments(loop, name):
    if not hasattr(asyncio.SelectorEventLoop, name):
        return "absent"
    method = getattr(loop, name)
    found = [str(inspect.signature(method)).replace("Any", "").split("->")[0].count(",")]
    for arguments in ((), (1, 2, 3, 4, 5)):
        try:
            method(*arguments)
        except TypeError as error:
            found.append(str(error))
    try:
        loop.run_until_complete(method(*[None] * (found[0] + 1)))
    except Exception as error:
        found.append(type(error).__name__)
    return found


@case
def a_closed_loop(loop):
    def test(a, b):
        loop.close()
        b.send(b"x")
        call = loop.sock_recv(a, 9)
        try:
            call.send(None)
        except StopIteration as stop:
            found = [stop.value]
        try:
            loop.sock_recv(a, 9).send(None)
        except RuntimeError as error:
            found.append(str(error))
        return found

    return with_pair(test)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case):
    stock, ours = on_both(case)
    assert ours.lines() == stock.lines()


def test_wrong_argument_counts_name_the_parameters():
    for name in ("sock_recv", "sock_recv_into", "sock_sendall", "sock_accept", "sock_connect"):
        ours = inspect.signature(getattr(ouroloop.Loop, name))
        stock = inspect.signature(getattr(asyncio.SelectorEventLoop, name))
        assert list(ours.parameters) == list(stock.parameters)


@pytest.mark.parametrize("name", CALLS)
def test_what_the_version_has(name):
    assert hasattr(ouroloop.Loop, name) == hasattr(asyncio.SelectorEventLoop, name)


# --- many at once


def test_gather_and_wait_for(loop, pair):
    a, b = pair

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.sock_recv(a, 9), 0.01)
        got = await asyncio.gather(loop.sock_recv(a, 9), loop.sock_sendall(b, b"x"))
        assert got == [b"x", None]

    loop.run_until_complete(main())


def test_reading_and_writing_wait_together(loop, pair):
    a, b = pair

    async def main():
        sending = loop.create_task(loop.sock_sendall(a, bytes(LARGE)))
        receiving = loop.create_task(loop.sock_recv(a, 9))
        await settle()
        assert not sending.done()
        await loop.sock_sendall(b, b"x")
        assert await receiving == b"x"
        received = 0
        while received < LARGE:
            received += len(await loop.sock_recv(b, 1 << 18))
        await sending

    loop.run_until_complete(main())


def test_several_wait_for_one_socket(loop, pair):
    """On stock asyncio all but the last wait for ever."""
    a, b = pair

    async def main():
        tasks = [loop.create_task(loop.sock_recv(a, 1)) for _ in range(5)]
        await settle()
        b.send(b"abc")
        await settle()
        assert [task.result() for task in tasks[:3]] == [b"a", b"b", b"c"]
        assert not tasks[3].done()
        tasks[3].cancel()
        await settle()
        b.send(b"d")
        assert await tasks[4] == b"d"

    loop.run_until_complete(main())


def test_several_accept(loop):
    async def main():
        with listening() as listener, contextlib.ExitStack() as stack:
            tasks = [loop.create_task(loop.sock_accept(listener)) for _ in range(4)]
            await settle()
            clients = [socket.create_connection(listener.getsockname()) for _ in range(4)]
            for client in clients:
                stack.enter_context(client)
            peers = []
            for connection, peer in await asyncio.gather(*tasks):
                stack.enter_context(connection)
                peers.append(peer)
            assert sorted(peers) == sorted(client.getsockname() for client in clients)

    loop.run_until_complete(main())


def test_an_echo_on_many_connections(loop):
    async def echo(sock):
        with sock:
            while data := await loop.sock_recv(sock, 1 << 16):
                await loop.sock_sendall(sock, data)

    async def client(number, address):
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            generator = random.Random(number)
            for _ in range(20):
                data = generator.randbytes(generator.choice((1, 100, 5000, 200000)))
                sending = loop.create_task(loop.sock_sendall(sock, data))
                received = b""
                while len(received) < len(data):
                    received += await loop.sock_recv(sock, generator.choice((10, 1 << 14, 1 << 20)))
                await sending
                assert received == data

    async def main():
        with listening() as listener:
            tasks = []

            async def serve():
                while True:
                    connection, _ = await loop.sock_accept(listener)
                    tasks.append(loop.create_task(echo(connection)))

            serving = loop.create_task(serve())
            await asyncio.gather(*(client(n, listener.getsockname()) for n in range(12)))
            serving.cancel()
            await asyncio.gather(*tasks)

    loop.run_until_complete(main())
