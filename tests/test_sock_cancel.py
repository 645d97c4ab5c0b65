"""Calls that are cancelled while they wait, and sockets that go away under them."""

import asyncio
import contextlib
import os
import socket
import tempfile

import pytest
from network import Recorder, settle, turns, until
from plain_sockets import HERE, LARGE, datagram, listening

pytestmark = pytest.mark.usefixtures("frozen_garbage")


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
                connection, _ = await asyncio.wait_for(loop.sock_accept(listener), 5)
            with connection:
                assert connection.getpeername() == client.getsockname()

    loop.run_until_complete(main())


@pytest.mark.parametrize("name", [name for name in HERE if name != "sock_sendto"])
def test_cancelling_what_waits(loop, name):
    async def main():
        a, b = socket.socketpair()
        client, first = socket.socket(), socket.socket()
        with a, b, client, first, listening() as listener, listening() as full, datagram() as sock:
            # Has no place for a second client and does not answer it.
            full.listen(0)
            first.connect(full.getsockname())
            for each in (a, client):
                each.setblocking(False)
            given = {
                "sock_recv": (a, 1),
                "sock_recv_into": (a, bytearray(1)),
                "sock_sendall": (a, bytes(LARGE)),
                "sock_accept": (listener,),
                "sock_connect": (client, full.getsockname()),
                "sock_recvfrom": (sock, 1),
                "sock_recvfrom_into": (sock, bytearray(1)),
            }[name]
            task = loop.create_task(getattr(loop, name)(*given))
            await settle()
            assert loop._watched(given[0])
            task.cancel("why")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not loop._watched(given[0])

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
            await turns(100)
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
