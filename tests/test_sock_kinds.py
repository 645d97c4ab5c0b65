"""Sockets that are closed, blocking, TLS, watched, or have methods of their own: as on asyncio."""

import asyncio
import os
import socket
import ssl

import pytest
from network import settle
from outcome import Cases, on_both, with_pair
from plain_sockets import CALLS, listening

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each


# --- closed, TLS and blocking sockets


@cases("sock_recv", "sock_recv_into", "sock_sendall", "sock_accept", "sock_connect")
def calls_on_a_closed_socket(loop, name):
    sock = socket.socket()
    sock.setblocking(False)
    sock.close()
    return loop.run_until_complete(getattr(loop, name)(sock, *CALLS[name]))


@cases("sock_recv", "sock_recv_into", "sock_sendall", "sock_accept", "sock_connect")
def tls_sockets_are_refused(loop, name):
    context = ssl.create_default_context()
    context.check_hostname = False
    with socket.socket() as plain:
        plain.setblocking(False)
        with context.wrap_socket(plain, do_handshake_on_connect=False) as sock:
            return loop.run_until_complete(getattr(loop, name)(sock, *CALLS[name]))


@cases("sock_recv", "sock_recv_into", "sock_sendall", "sock_accept", "sock_connect")
def blocking_sockets_in_debug_mode(loop, name):
    loop.set_debug(True)
    with socket.socket() as sock:
        return loop.run_until_complete(getattr(loop, name)(sock, *CALLS[name]))


@cases("sock_recv", "sock_accept")
def sockets_with_a_timeout_use_it(loop, name):
    def test(a, b):
        a.settimeout(0.01)
        with listening() as listener:
            listener.settimeout(0.01)
            sock = listener if name == "sock_accept" else a
            return loop.run_until_complete(getattr(loop, name)(sock, *CALLS[name]))

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


# --- what only looks like a socket


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


# --- sockets with other users


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

                await getattr(loop, name)(Same(sock), *CALLS[name])
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case):
    stock, ours = on_both(case)
    assert ours.lines() == stock.lines()
