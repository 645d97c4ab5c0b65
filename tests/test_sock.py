"""csrc/sock.c: sock_recv() and its kin, and sock_sendfile(), mostly beside stock asyncio."""

import array
import asyncio
import contextlib
import gc
import inspect
import os
import random
import socket
import ssl
import sys
import tempfile
import types
import warnings
import weakref

import ouroloop
import pytest
from network import Recorder, connected, until
from outcome import Cases, on_both, with_pair

pytestmark = pytest.mark.usefixtures("frozen_garbage")

LARGE = 4 << 20

CASES = Cases()
case, cases = CASES.one, CASES.each


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


async def settle(turns=8):
    """Let everybody else do what can be done."""
    for _ in range(turns):
        await asyncio.sleep(0.001)


def listening(family=socket.AF_INET):
    sock = socket.socket(family)
    sock.setblocking(False)
    sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    sock.listen(5)
    return sock


def datagram():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock


# --- the same as on stock asyncio: results and errors


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


@cases("sock_recv", "sock_recv_into", "sock_sendall", "sock_accept", "sock_connect")
def calls_on_a_closed_socket(loop, name):
    arguments = {
        "sock_recv": (1,),
        "sock_recv_into": (bytearray(1),),
        "sock_sendall": (b"x",),
        "sock_accept": (),
        "sock_connect": (("127.0.0.1", 9),),
    }

    sock = socket.socket()
    sock.setblocking(False)
    sock.close()
    return loop.run_until_complete(getattr(loop, name)(sock, *arguments[name]))


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


def test_wrong_argument_counts_name_the_parameters():
    for name in ("sock_recv", "sock_recv_into", "sock_sendall", "sock_accept", "sock_connect"):
        ours = inspect.signature(getattr(ouroloop.Loop, name))
        stock = inspect.signature(getattr(asyncio.SelectorEventLoop, name))
        assert list(ours.parameters) == list(stock.parameters)


@cases("sock_recv", "sock_recv_into", "sock_sendall", "sock_accept", "sock_connect")
def tls_sockets_are_refused(loop, name):
    arguments = {
        "sock_recv": (1,),
        "sock_recv_into": (bytearray(1),),
        "sock_sendall": (b"x",),
        "sock_accept": (),
        "sock_connect": (("127.0.0.1", 9),),
    }
    context = ssl.create_default_context()
    context.check_hostname = False
    with socket.socket() as plain:
        plain.setblocking(False)
        with context.wrap_socket(plain, do_handshake_on_connect=False) as sock:
            return loop.run_until_complete(getattr(loop, name)(sock, *arguments[name]))


@cases("sock_recv", "sock_recv_into", "sock_sendall", "sock_accept", "sock_connect")
def blocking_sockets_in_debug_mode(loop, name):
    arguments = {
        "sock_recv": (1,),
        "sock_recv_into": (bytearray(1),),
        "sock_sendall": (b"x",),
        "sock_accept": (),
        "sock_connect": (("127.0.0.1", 9),),
    }
    loop.set_debug(True)
    with socket.socket() as sock:
        return loop.run_until_complete(getattr(loop, name)(sock, *arguments[name]))


@cases("sock_recv", "sock_accept")
def sockets_with_a_timeout_use_it(loop, name):
    arguments = {"sock_recv": (1,), "sock_accept": ()}

    def test(a, b):
        a.settimeout(0.01)
        with listening() as listener:
            listener.settimeout(0.01)
            sock = listener if name == "sock_accept" else a
            return loop.run_until_complete(getattr(loop, name)(sock, *arguments[name]))

    return with_pair(test)


@case
def blocking_sockets_with_data(loop):
    def test(a, b):
        a.setblocking(True)
        b.setblocking(True)
        b.send(b"hello")
        loop.run_until_complete(loop.sock_sendall(a, b"world"))
        return loop.run_until_complete(loop.sock_recv(a, 9)), b.recv(9)

    return with_pair(test)


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
            return await loop.sock_connect(client, (host, listener.getsockname()[1]))

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
                return loop.run_until_complete(loop.sock_connect(client, address))
            except OSError as error:
                return type(error), error.errno


@case
def connect_twice(loop):
    async def main():
        with listening() as listener, socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, listener.getsockname())
            await loop.sock_connect(client, listener.getsockname())

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


class Wrapper:
    """What has a socket's methods."""

    def __init__(self, sock):
        self.sock = sock

    def __getattr__(self, name):
        return getattr(self.sock, name)


class Slow(socket.socket):
    """A socket with methods of its own: one byte at a time, and not at every call."""

    def __init__(self, sock):
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.setblocking(False)
        self.calls = 0

    def skip(self):
        self.calls += 1
        if self.calls % 3 == 1:
            raise (InterruptedError if self.calls % 2 else BlockingIOError)

    def recv(self, size):
        self.skip()
        return super().recv(1)

    def recv_into(self, buffer):
        self.skip()
        return super().recv_into(buffer, 1)

    def send(self, data):
        self.skip()
        return super().send(data[:1])


@cases(Wrapper, Slow)
def other_kinds_of_sockets(loop, kind):
    def test(a, b):
        async def main():
            sock = kind(a)
            buffer = bytearray(3)
            b.send(b"hello")
            found = [await loop.sock_recv(sock, 2), await loop.sock_recv_into(sock, buffer), buffer]
            await loop.sock_sendall(sock, b"world")
            task = loop.create_task(loop.sock_recv(sock, 9))
            await settle()
            b.send(b"!")
            found += [await task, b.recv(9)]
            sock.close()
            return found

        return loop.run_until_complete(main())

    return with_pair(test)


@case
def a_patched_method(loop):
    def test(a, b):
        original = socket.socket.recv
        socket.socket.recv = lambda self, size: b"patched"
        try:
            return loop.run_until_complete(loop.sock_recv(a, 9))
        finally:
            if "recv" in vars(socket.socket):
                del socket.socket.recv
            assert socket.socket.recv is original

    return with_pair(test)


@cases(KeyError, KeyboardInterrupt, asyncio.CancelledError, OSError)
def errors_of_methods(loop, error):
    class Failing(Wrapper):
        def recv(self, size):
            if self.gettimeout() == 0 and not self.tried:
                self.tried = True
                raise BlockingIOError
            raise error("mine")

        tried = False

    def test(a, b):
        b.send(b"x")
        return loop.run_until_complete(loop.sock_recv(Failing(a), 9))

    return with_pair(test)


@cases(None, "x", 10**9, -7)
def odd_filenos(loop, number):
    class Odd(Wrapper):
        def fileno(self):
            return number

    return with_pair(lambda a, b: loop.run_until_complete(loop.sock_recv(Odd(a), 9)))


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


@cases("sock_recv", "sock_sendall", "sock_accept")
def a_transports_socket_is_refused(loop, name):
    async def main():
        _reader, writer = None, None
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        try:
            _reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            sock = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
            number = writer.get_extra_info("socket").fileno()
            with sock:

                class Same(Wrapper):
                    def fileno(self):
                        return number

                    def recv(self, size):
                        raise BlockingIOError

                    def send(self, data):
                        raise BlockingIOError

                    def accept(self):
                        raise BlockingIOError

                arguments = {"sock_recv": (1,), "sock_sendall": (b"x",), "sock_accept": ()}
                await getattr(loop, name)(Same(sock), *arguments[name])
        finally:
            writer.close()
            server.close()
            await asyncio.sleep(0.01)

    return loop.run_until_complete(main())


@case
def waiting_replaces_the_users_callback(loop):
    def test(a, b):
        async def main():
            calls = []
            handle = loop._add_reader(a.fileno(), calls.append, "callback")
            task = loop.create_task(loop.sock_recv(a, 9))
            await settle()
            found = [handle.cancelled()]
            b.send(b"x")
            found += [await task, calls]
            b.send(b"y")
            await settle()
            return [*found, calls, loop.remove_reader(a)]

        return loop.run_until_complete(main())

    return with_pair(test)


@case
def a_writer_beside_a_waiting_reader(loop):
    def test(a, b):
        async def main():
            calls = []

            def write():
                calls.append(a.send(b"hello"))
                loop.remove_writer(a)

            task = loop.create_task(loop.sock_recv(a, 9))
            await settle()
            loop.add_writer(a, write)
            await settle()
            b.send(b"x")
            return await task, calls, b.recv(9), loop.remove_reader(a), loop.remove_writer(a)

        return loop.run_until_complete(main())

    return with_pair(test)


@case
def what_is_waited_for_is_seen(loop):
    def test(a, b):
        async def main():
            assert not loop.remove_reader(a)
            task = loop.create_task(loop.sock_recv(a, 9))
            await settle()
            key = loop._selector.get_map().get(a.fileno())
            b.send(b"x")
            await task
            return key.events, loop._selector.get_map().get(a.fileno()), loop.remove_reader(a)

        return loop.run_until_complete(main())

    return with_pair(test)


# --- sendfile


@contextlib.contextmanager
def stored(content):
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield file


async def tcp_pair(loop):
    with listening() as listener:
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        server, _ = await loop.sock_accept(listener)
    return client, server


async def receive_all(loop, sock):
    received = bytearray()
    while data := await loop.sock_recv(sock, 1 << 18):
        received += data
    return bytes(received)


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
        client, server = await tcp_pair(loop)
        with client, server, stored(content) as file:
            task = loop.create_task(receive_all(loop, server))
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
    import io

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
        client, server = await tcp_pair(loop)
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
        left, right = await tcp_pair(loop) if kind == "tcp" else socket.socketpair()
        right.setblocking(False)
        with right, stored(content) as file:
            transport, protocol = await loop.create_connection(Recorder, sock=left)
            transport.write(b"head")
            task = loop.create_task(receive_all(loop, right))
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
def test_as_on_asyncio(case):
    stock, ours = on_both(case)
    assert ours.lines() == stock.lines()


# --- what a call is


CALLS = {
    "sock_recv": (1,),
    "sock_recv_into": (bytearray(1),),
    "sock_sendall": (b"x",),
    "sock_accept": (),
    "sock_connect": ("nowhere",),
    "sock_recvfrom": (1,),
    "sock_recvfrom_into": (bytearray(1),),
    "sock_sendto": (b"x", "nowhere"),
}
HERE = [name for name in CALLS if hasattr(asyncio.SelectorEventLoop, name)]


@pytest.mark.parametrize("name", HERE)
def test_they_are_coroutines(loop, pair, name):
    call = getattr(loop, name)(pair[0], *CALLS[name])
    assert inspect.iscoroutine(call)
    assert asyncio.iscoroutine(call)
    assert inspect.isawaitable(call)
    assert isinstance(call, types.CoroutineType)
    assert inspect.iscoroutinefunction(getattr(loop, name))
    call.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(loop, name)(pair[0], *CALLS[name])
        gc.collect()
    assert [str(w.message) for w in caught] == [f"coroutine 'Loop.{name}' was never awaited"]


@pytest.mark.parametrize("name", CALLS)
def test_what_the_version_has(name):
    assert hasattr(ouroloop.Loop, name) == hasattr(asyncio.SelectorEventLoop, name)


def test_nothing_happens_before_the_await(loop, pair):
    a, b = pair
    call = loop.sock_recv(a, 9)
    b.send(b"x")
    assert a.recv(9) == b"x"
    b.send(b"y")
    assert loop.run_until_complete(call) == b"y"


def test_by_hand(loop, pair):
    a, _b = pair
    call = loop.sock_recv(a, 9)
    future = call.send(None)
    assert isinstance(future, asyncio.Future)
    assert call.cr_await is not None
    assert loop._watched(a) == 1
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        call.send(None)
    assert loop._watched(a) == 0
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        call.send(None)
    for throw in (True, False):
        call = loop.sock_recv(a, 9)
        future = call.send(None)
        if throw:
            with pytest.raises(KeyError, match="mine"):
                call.throw(KeyError("mine"))
        else:
            call.close()
        assert loop._watched(a) == 0
        assert not future.done()
    call = loop.sock_recv(a, 9)
    future = call.send(None)
    future.set_exception(KeyError("of the future"))
    with pytest.raises(KeyError, match="of the future"):
        call.send(None)
    assert loop._watched(a) == 0


def test_the_insides_by_hand(loop, pair):
    a, b = pair
    inner = loop._call_recv(a, 9)
    assert inner.__await__() is inner
    assert iter(inner) is inner
    b.send(b"x")
    with pytest.raises(StopIteration) as caught:
        next(inner)
    assert caught.value.value == b"x"
    with pytest.raises(RuntimeError, match="cannot reuse"):
        inner.send(None)
    inner.close()
    with pytest.raises(TypeError, match="expected 2 arguments, got 1"):
        loop._call_recv(a)
    with pytest.raises(TypeError):
        type(inner)()


def test_a_call_that_is_entered_twice(loop, pair):
    class Again(socket.socket):
        def recv(self, size):
            return call.send(None)

    a, _b = pair
    with Again(fileno=os.dup(a.fileno())) as sock:
        call = loop._call_recv(sock, 9)
        with pytest.raises(RuntimeError, match="tried already"):
            call.send(None)


def test_a_call_that_is_closed_by_what_it_calls(loop, pair):
    class Closing(socket.socket):
        def send(self, data):
            call.close()
            return 1

    a, _b = pair
    with Closing(fileno=os.dup(a.fileno())) as sock:
        call = loop._call_sendall(sock, b"abc")
        with pytest.raises(RuntimeError, match="tried already"):
            call.send(None)
        assert loop._watched(sock) == 0


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
            for _ in range(4):
                stack.enter_context(socket.create_connection(listener.getsockname()))
            for connection, _ in await asyncio.gather(*tasks):
                stack.enter_context(connection)

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


# --- cancellation


@pytest.mark.parametrize("turns", range(5))
def test_nothing_is_lost_by_cancelling(loop, pair, turns):
    """Whatever moment it comes at: stock asyncio may have received already."""
    a, b = pair

    async def main():
        task = loop.create_task(loop.sock_recv(a, 9))
        await settle()
        b.send(b"data")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            return await task
        return await loop.sock_recv(a, 9)

    assert loop.run_until_complete(main()) == b"data"


def test_cancelling_by_the_callback_that_runs_before(loop, pair):
    """Input was reported, but the task has not run yet."""
    a, b = pair

    async def main():
        other, peer = socket.socketpair()
        with other, peer:
            loop.add_reader(other, lambda: (task.cancel(), loop.remove_reader(other)))
            task = loop.create_task(loop.sock_recv(a, 9))
            await settle()
            peer.send(b"x")
            b.send(b"data")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await loop.sock_recv(a, 9) == b"data"

    loop.run_until_complete(main())


def test_an_accepted_connection_is_not_lost(loop):
    async def main():
        with listening() as listener, socket.socket() as client:
            task = loop.create_task(loop.sock_accept(listener))
            await settle()
            client.connect(listener.getsockname())
            await asyncio.sleep(0)
            task.cancel()
            try:
                connection, _ = await task
            except asyncio.CancelledError:
                connection, _ = await loop.sock_accept(listener)
            connection.close()

    loop.run_until_complete(main())


@pytest.mark.parametrize("name", [name for name in HERE if name != "sock_sendto"])
def test_cancelling_what_waits(loop, name):
    async def main():
        a, b = socket.socketpair()
        client = socket.socket()
        with a, b, client, listening() as listener, datagram() as sock:
            for each in (a, client):
                each.setblocking(False)
            filler = loop.create_task(loop.sock_sendall(b, b"")) if name else None
            await filler
            given = {
                "sock_recv": (a, 1),
                "sock_recv_into": (a, bytearray(1)),
                "sock_sendall": (a, bytes(LARGE)),
                "sock_accept": (listener,),
                "sock_connect": (client, ("192.0.2.1", 9)),
                "sock_recvfrom": (sock, 1),
                "sock_recvfrom_into": (sock, bytearray(1)),
            }[name]
            task = loop.create_task(getattr(loop, name)(*given))
            await settle()
            if name == "sock_connect" and task.done():
                assert isinstance(task.exception(), OSError)  # No route: nothing to wait for.
                return
            assert loop._watched(given[0])
            task.cancel("why")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not loop._watched(given[0])

    loop.run_until_complete(main())


def test_a_file_that_is_half_sent(loop):
    async def main():
        client, server = await tcp_pair(loop)
        with client, server, stored(bytes(LARGE * 4)) as file:
            task = loop.create_task(loop.sock_sendfile(client, file))
            await settle()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            client.shutdown(socket.SHUT_WR)
            assert file.tell() == len(await receive_all(loop, server)) > 0

    loop.run_until_complete(main())


# --- sockets that go away


@pytest.mark.parametrize("how", ["close", "detach"])
@pytest.mark.parametrize("name", ["sock_recv", "sock_recv_into", "sock_sendall", "sock_accept"])
def test_closed_under_a_waiting_call(loop, name, how):
    """On stock asyncio it waits for ever."""

    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with a, b, listening() as listener:
            given = {
                "sock_recv": (a, 1),
                "sock_recv_into": (a, bytearray(1)),
                "sock_sendall": (a, bytes(LARGE)),
                "sock_accept": (listener,),
            }[name]
            task = loop.create_task(getattr(loop, name)(*given))
            await settle(100)
            number = getattr(given[0], how)()
            with pytest.raises(OSError, match="Bad file descriptor"):
                await asyncio.wait_for(task, 5)
            if number is not None:
                os.close(number)

    loop.run_until_complete(main())


def test_closed_before_the_poll(loop):
    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            task = loop.create_task(loop.sock_recv(a, 1))
            loop.call_soon(a.close)
            with pytest.raises(OSError, match="Bad file descriptor"):
                await asyncio.wait_for(task, 5)

    loop.run_until_complete(main())


def test_closed_and_the_number_used_again(loop):
    """At once, while the old call still waits."""

    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            old = loop.create_task(loop.sock_recv(a, 1))
            await settle()
            number = a.fileno()
            a.close()
            c, d = socket.socketpair()
            with c, d:
                c.setblocking(False)
                d.setblocking(False)
                mine, other = (c, d) if c.fileno() == number else (d, c)
                assert mine.fileno() == number
                new = loop.create_task(loop.sock_recv(mine, 1))
                with pytest.raises(OSError, match="Bad file descriptor"):
                    await asyncio.wait_for(old, 5)
                other.send(b"x")
                assert await asyncio.wait_for(new, 5) == b"x"

    loop.run_until_complete(main())


def test_numbers_go_round(loop):
    """Sockets that are closed after use, and new ones in their place."""

    async def main():
        for number in range(100):
            a, b = socket.socketpair()
            with a, b:
                a.setblocking(False)
                task = loop.create_task(loop.sock_recv(a, 1))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                b.send(b"x")
                assert await asyncio.wait_for(task, 5) == b"x"
                if number % 3 == 0:
                    transport, protocol = await loop.create_connection(Recorder, sock=a)
                    b.send(b"y")
                    await until(lambda protocol=protocol: protocol.data == b"y")
                    transport.close()
                    await protocol.lost
                elif number % 3 == 1:
                    seen = []
                    loop.add_reader(a, lambda a=a, seen=seen: seen.append(a.recv(9)))
                    b.send(b"y")
                    await until(lambda seen=seen: seen)
                    assert seen == [b"y"]
                    loop.remove_reader(a)

    loop.run_until_complete(main())


def test_a_number_that_becomes_a_regular_file(loop):
    async def main():
        a, b = socket.socketpair()
        with b:
            a.setblocking(False)
            task = loop.create_task(loop.sock_recv(a, 1))
            await settle()
            b.send(b"x")
            await task
            number = a.fileno()
            a.close()
            with tempfile.TemporaryFile() as file:
                assert file.fileno() == number
                with pytest.raises(PermissionError):
                    loop.add_reader(file, print)

    loop.run_until_complete(main())


def test_a_transport_takes_the_socket_over(loop):
    """The waiting call, too, is told that the socket is a transport's now."""

    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            task = loop.create_task(loop.sock_recv(a, 1))
            await settle()
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            with pytest.raises(RuntimeError, match="is used by transport"):
                await asyncio.wait_for(task, 5)
            b.send(b"x")
            await until(lambda: protocol.data == b"x")
            transport.close()
            await protocol.lost

    loop.run_until_complete(main())


# --- memory


def test_a_task_that_only_the_loop_knows_lives(loop, pair):
    a, b = pair
    results = []

    async def read():
        results.append(await loop.sock_recv(a, 9))

    async def main():
        loop.create_task(read())
        await settle()
        gc.collect()
        b.send(b"x")
        await settle()

    loop.run_until_complete(main())
    assert results == [b"x"]


def test_what_a_call_holds_is_let_go(loop):
    class Socket(socket.socket):
        pass

    async def main():
        a, b = socket.socketpair()
        sock = Socket(fileno=a.detach())
        sock.setblocking(False)
        gone = weakref.ref(sock)
        with b:
            task = loop.create_task(loop.sock_recv(sock, 9))
            await settle()
            b.send(b"x")
            await task
            sock.close()
            del task, sock
            gc.collect()
            assert gone() is None

    loop.run_until_complete(main())


@pytest.mark.parametrize("close", [True, False])
def test_a_loop_that_ends_before_the_call(pair, close):
    a, _b = pair

    def forget():
        loop = ouroloop.new_event_loop()
        task = loop.create_task(loop.sock_recv(a, 9))
        loop.create_task(loop.sock_sendall(a, bytes(LARGE)))
        loop.call_later(0.005, loop.stop)
        loop.run_forever()
        assert not task.done()
        loop.set_exception_handler(lambda loop, context: None)
        if close:
            loop.close()
        return weakref.ref(loop)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gone = forget()
        gc.collect()
        assert gone() is None


def test_debug_mode_and_a_loop_of_the_users(pair):
    class Mine(ouroloop.Loop):
        calls = 0

        def call_soon(self, *args, **kwargs):
            self.calls += 1
            return super().call_soon(*args, **kwargs)

    a, b = pair
    loop = Mine()
    try:
        for debug in (False, True):
            loop.set_debug(debug)
            before = loop.calls
            task = loop.create_task(loop.sock_recv(a, 9))
            loop.call_later(0.005, b.send, b"x")
            assert loop.run_until_complete(task) == b"x"
            assert loop.calls > before
    finally:
        loop.close()


def test_a_wake_up_that_fails_is_reported(pair, reports):
    class Broken(ouroloop.Loop):
        broken = False

        def call_soon(self, *args, **kwargs):
            if self.broken:
                self.broken = False
                raise KeyError("mine")
            return super().call_soon(*args, **kwargs)

    a, b = pair
    loop = Broken()
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    try:
        task = loop.create_task(loop.sock_recv(a, 9))
        loop.call_later(0.005, loop.stop)
        loop.run_forever()
        loop.broken = True
        b.send(b"x")
        loop._run_once()
        assert not loop.broken
        assert [report["message"] for report in reports.take()] == [
            "Cannot wake a call that waits for a socket"
        ]
        task._log_destroy_pending = False  # Nothing is going to wake it.
    finally:
        loop.close()


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
