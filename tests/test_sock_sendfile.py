"""Files sent by sock_sendfile() and over transports: as on asyncio, and given up in the middle."""

import asyncio
import contextlib
import io
import os
import random
import socket
import tempfile

import pytest
from network import Recorder, connected, read_all, settle, until
from outcome import Cases, on_both, with_pair
from plain_sockets import LARGE, datagram, listening

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each


@contextlib.contextmanager
def stored(content):
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield file


async def tcp_sockets(loop):
    with listening() as listener:
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        server, _ = await loop.sock_accept(listener)
    return client, server


@cases(
    (),
    (0, None),
    (10,),
    (10, 20),
    (0, LARGE),
    (5, LARGE + 1),
    (LARGE - 3, 9),
    (LARGE + 9, 5),
    (1, 1),
)
def send_files(loop, arguments):
    content = random.Random(1).randbytes(LARGE)

    async def main():
        client, server = await tcp_sockets(loop)
        with client, server, stored(content) as file:
            task = loop.create_task(read_all(server))
            count = await loop.sock_sendfile(client, file, *arguments, fallback=False)
            client.shutdown(socket.SHUT_WR)
            offset = arguments[0] if arguments else 0
            received = await task
            return count, len(received), received == content[offset : offset + count], file.tell()

    return loop.run_until_complete(main())


@cases((-1,), (1.5,), ("1",), (0, 0), (0, -1), (0, 1.5), (None,))
def send_files_with_odd_numbers(loop, arguments):
    def test(a, b):
        with stored(b"hello") as file:
            return loop.run_until_complete(loop.sock_sendfile(a, file, *arguments))

    return with_pair(test)


@cases("text", "datagram", "no file", "closed", "pipe", "bytes", "blocking", "empty")
def send_odd_files(loop, kind):
    def test(a, b):
        fallback = kind in ("bytes", "empty")
        with contextlib.ExitStack() as stack:
            if kind == "text":
                file = stack.enter_context(tempfile.TemporaryFile("w"))
            elif kind == "pipe":
                r, w = os.pipe()
                stack.callback(os.close, w)
                file = stack.enter_context(open(r, "rb", buffering=0))
                os.write(w, b"hello")
            elif kind == "bytes":
                file = io.BytesIO(b"hello")
            else:
                file = stack.enter_context(stored(b"" if kind == "empty" else b"hello"))
            if kind == "closed":
                file.close()
            if kind == "no file":
                file = object()
            sock = a
            if kind == "datagram":
                sock = stack.enter_context(datagram())
            if kind == "blocking":
                loop.set_debug(True)
                sock.setblocking(True)
            count = 3 if kind == "pipe" else None
            found = [
                loop.run_until_complete(loop.sock_sendfile(sock, file, 0, count, fallback=fallback))
            ]
            loop.run_until_complete(loop.shutdown_default_executor())
            return [*found, file.tell(), b.recv(9) if found[0] else b""]

    return with_pair(test)


@case
def send_a_file_to_one_who_leaves(loop):
    async def main():
        client, server = await tcp_sockets(loop)
        with client, stored(bytes(LARGE * 4)) as file:
            task = loop.create_task(loop.sock_sendfile(client, file, fallback=False))
            await settle()
            await loop.sock_recv(server, 1000)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            server.close()
            try:
                await task
            except ConnectionError as error:
                return "connection", 0 < file.tell() < LARGE * 4, type(error) is not ConnectionError

    return loop.run_until_complete(main())


@case
def send_a_file_to_nobody(loop):
    def test(a, b):
        with stored(b"hello") as file:
            b.close()
            return loop.run_until_complete(loop.sock_sendfile(a, file, fallback=False))

    return with_pair(test)


@cases("tcp", "unix")
def send_files_over_transports(loop, kind):
    content = random.Random(2).randbytes(LARGE)

    async def main():
        left, right = await tcp_sockets(loop) if kind == "tcp" else socket.socketpair()
        right.setblocking(False)
        with right, stored(content) as file:
            transport, protocol = await loop.create_connection(Recorder, sock=left)
            transport.write(b"head")
            task = loop.create_task(read_all(right))
            found = [await loop.sendfile(transport, file, fallback=False), file.tell()]
            transport.write(b"tail")
            found.append(await loop.sendfile(transport, file, 7, 5))
            right.send(b"answer")
            await until(lambda: protocol.data == b"answer")
            transport.close()
            received = await task
            return [*found, received == b"head" + content + b"tail" + content[7:12]]

    return loop.run_until_complete(main())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case):
    stock, ours = on_both(case)
    assert ours.lines() == stock.lines()


def test_a_file_that_is_half_sent(loop):
    async def main():
        client, server = await tcp_sockets(loop)
        with client, server, stored(bytes(LARGE * 4)) as file:
            task = loop.create_task(loop.sock_sendfile(client, file))
            await settle()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            client.shutdown(socket.SHUT_WR)
            assert file.tell() == len(await read_all(server)) > 0

    loop.run_until_complete(main())


def test_a_transport_that_is_aborted_while_it_sends_a_file(loop):
    async def main():
        async with connected() as (transport, _):
            with stored(bytes(LARGE * 8)) as file:
                task = loop.create_task(loop.sendfile(transport, file))
                await settle()
                transport.abort()
                with pytest.raises((OSError, RuntimeError)):
                    await asyncio.wait_for(task, 5)

    loop.run_until_complete(main())
