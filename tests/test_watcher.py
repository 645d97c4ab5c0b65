"""csrc/watcher.c: one uv_poll_t for each descriptor, kept between calls of sock_*().

What add_reader() does with it is in test_poll.py, what sock_*() return in test_sock.py.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import tempfile
import threading
import time

import pytest
from network import Recorder, settle, until

pytestmark = pytest.mark.usefixtures("frozen_garbage")


async def exchange(loop, a, b, count=1):
    """Wait for input that comes later, so often."""
    for _ in range(count):
        task = loop.create_task(loop.sock_recv(a, 9))
        await asyncio.sleep(0)
        b.send(b"x")
        assert await asyncio.wait_for(task, 5) == b"x"


@contextlib.asynccontextmanager
async def idle():
    """What happens meanwhile leaves the loop asleep: no event is reported again and again."""
    yield
    await settle()
    before = time.thread_time()
    await asyncio.sleep(0.3)
    assert time.thread_time() - before < 0.15


def test_it_is_no_open_handle_to_others(loop, pair):
    a, b = pair
    loop.run_until_complete(exchange(loop, a, b))
    assert loop._open_handles() == []
    assert loop._watched(a) == 0
    waiting = loop.create_task(loop.sock_recv(a, 9))
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert loop._open_handles() == ["poll"]
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)
    assert loop._open_handles() == []


def test_input_that_nobody_wants(loop, pair):
    a, b = pair

    async def main():
        await exchange(loop, a, b, 3)
        async with idle():
            b.send(b"unwanted")
        assert await loop.sock_recv(a, 99) == b"unwanted"
        await exchange(loop, a, b)
        for _ in range(50):
            b.send(b"y")
            await asyncio.sleep(0.001)
        assert await loop.sock_recv(a, 99) == b"y" * 50
        await exchange(loop, a, b, 3)
        async with idle():
            b.close()
        assert await loop.sock_recv(a, 99) == b""

    loop.run_until_complete(main())


def test_room_that_nobody_wants(loop, pair):
    a, b = pair

    async def main():
        data = bytes(4 << 20)
        sending = loop.create_task(loop.sock_sendall(a, data))
        received = 0
        while received < len(data):
            received += len(await loop.sock_recv(b, 1 << 16))
        await sending
        async with idle():
            pass
        await exchange(loop, a, b, 40)
        await exchange(loop, b, a, 40)

    loop.run_until_complete(main())


@pytest.mark.parametrize("wait", [0, 1], ids=["used", "waiting"])
def test_a_copy_outlives_the_socket(loop, wait):
    """The kernel goes on reporting a closed descriptor while another refers to the same socket."""

    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            await exchange(loop, a, b)
            task = loop.create_task(loop.sock_recv(a, 9)) if wait else None
            await settle()
            copy = a.dup()
            number = a.fileno()
            async with idle():
                a.close()
                b.send(b"x")
                b.send(b"y")
            if task is not None:
                with pytest.raises(OSError, match="Bad file descriptor"):
                    await asyncio.wait_for(task, 5)
            # The number's next owner shares it with what is reported of the copy.
            c, d = socket.socketpair()
            with c, d, copy:
                mine, other = (c, d) if c.fileno() == number else (d, c)
                assert mine.fileno() == number
                mine.setblocking(False)
                async with idle():
                    task = loop.create_task(loop.sock_recv(mine, 9))
                    b.send(b"z")
                assert not task.done()
                other.send(b"mine")
                assert await asyncio.wait_for(task, 5) == b"mine"

    loop.run_until_complete(main())


def test_a_child_holds_a_copy(loop):
    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            await exchange(loop, a, b)
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[a.fileno()]):
                async with idle():
                    a.close()
                    b.send(b"x")

    loop.run_until_complete(main())


def test_a_socket_that_changes_its_file(loop):
    """os.dup2() puts another connection in its place, with a call waiting and without."""

    async def main():
        a, b = socket.socketpair()
        c, d = socket.socketpair()
        for sock in (a, c):
            sock.setblocking(False)
        with a, b, c, d:
            await exchange(loop, a, b)
            new = socket.socket(fileno=os.dup(a.fileno()))
            with new:
                await exchange(loop, new, b)
                os.dup2(c.fileno(), new.fileno())
                other = socket.socket(fileno=new.detach())
            with other:
                await exchange(loop, other, d)

    loop.run_until_complete(main())


def test_callbacks_take_over_and_give_back(loop, pair):
    a, b = pair

    async def main():
        seen = []
        for _ in range(3):
            await exchange(loop, a, b)
            loop.add_reader(a, lambda: seen.append(a.recv(9)))
            loop.add_writer(a, lambda: (seen.append("w"), loop.remove_writer(a)))
            b.send(b"y")
            await settle()
            assert sorted(map(str, seen)) == ["b'y'", "w"]
            seen.clear()
            assert loop.remove_reader(a)
        assert loop._open_handles() == []

    loop.run_until_complete(main())


def test_a_callback_is_called_again_beside_a_call(loop, pair):
    """They are called as long as there is input, though the call needs changes only."""
    a, b = pair

    async def main():
        calls = []
        sending = loop.create_task(loop.sock_sendall(a, bytes(4 << 20)))
        await settle()
        loop.add_reader(a, calls.append, 1)
        b.send(b"x")
        await settle()
        assert len(calls) > 2
        loop.remove_reader(a)
        received = 0
        while received < 4 << 20:
            received += len(await loop.sock_recv(b, 1 << 16))
        await sending
        assert a.recv(9) == b"x"

    loop.run_until_complete(main())


def test_a_callback_is_replaced_while_a_call_waits(loop, pair):
    a, b = pair

    async def main():
        task = loop.create_task(loop.sock_recv(a, 1))
        await settle()
        calls = []
        loop.add_reader(a, calls.append, 1)
        await settle()
        b.send(b"x")
        assert await task == b"x"
        assert loop.remove_reader(a)

    loop.run_until_complete(main())


def test_an_error_wakes_everybody(loop):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a:
            a.setblocking(False)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
                b.bind(("127.0.0.1", 0))
                a.connect(b.getsockname())
                tasks = [loop.create_task(loop.sock_recv(a, 9)) for _ in range(2)]
                await settle()
            for task in tasks:
                a.send(b"x")
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.wait_for(task, 5)

    loop.run_until_complete(main())


def test_the_thread_that_closes_is_another(loop):
    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            task = loop.create_task(loop.sock_recv(a, 9))
            await settle()
            await loop.run_in_executor(None, a.close)
            with pytest.raises(OSError, match="Bad file descriptor"):
                await asyncio.wait_for(task, 5)

    loop.run_until_complete(main())


def test_a_look_at_sockets_with_a_mind_of_their_own(loop, pair):
    """The loop asks those that are waited for whether they are open still."""
    a, b = pair
    state = {"error": None, "asked": 0}

    class Odd(socket.socket):
        def fileno(self):
            state["asked"] += 1
            if state["error"] == "cancel":
                task.cancel()
            elif state["error"] is not None:
                raise state["error"]
            return super().fileno()

    async def main():
        nonlocal task
        with Odd(fileno=os.dup(a.fileno())) as sock:
            sock.setblocking(False)
            for error, expected in (
                (KeyError("mine"), KeyError),
                ("cancel", asyncio.CancelledError),
            ):
                state["error"] = None
                task = loop.create_task(loop.sock_recv(sock, 9))
                await settle()
                state["error"] = error
                with pytest.raises(expected):
                    await asyncio.wait_for(task, 5)
                state["error"] = None
            task = loop.create_task(loop.sock_recv(sock, 9))
            before = state["asked"]
            await asyncio.sleep(0.2)
            assert state["asked"] > before
            b.send(b"x")
            assert await task == b"x"

    task = None
    loop.run_until_complete(main())


def test_an_idle_loop_sleeps(loop, pair):
    """Nothing can be closed while nothing runs: the loop does not look again and again."""
    a, b = pair
    calls = []

    class Counting(socket.socket):
        def fileno(self):
            calls.append(1)
            return super().fileno()

    with Counting(fileno=os.dup(a.fileno())) as sock:
        sock.setblocking(False)
        task = loop.create_task(loop.sock_recv(sock, 9))
        timer = threading.Timer(0.5, b.send, [b"x"])
        timer.start()
        assert loop.run_until_complete(task) == b"x"
        timer.join()
    assert len(calls) < 10


def test_closing_with_what_is_kept(pair):
    import ouroloop

    a, b = pair
    loop = ouroloop.new_event_loop()
    loop.run_until_complete(exchange(loop, a, b))
    loop.close()
    assert a.fileno() >= 0
    b.send(b"x")
    assert a.recv(9) == b"x"
    loop = ouroloop.new_event_loop()
    loop.run_until_complete(exchange(loop, a, b))
    loop.close()


def test_a_transport_after_calls(loop):
    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            await exchange(loop, a, b, 2)
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            b.send(b"x")
            await until(lambda: protocol.data == b"x")
            transport.close()
            await protocol.lost

    loop.run_until_complete(main())


# --- others beside a transport


@pytest.fixture(params=[False, True], ids=["", "debug"])
def any_loop(loop, request):
    loop.set_debug(request.param)
    return loop


SIZE = 3_000_000


async def read_all_of_it(loop, sock):
    size = 0
    while size < SIZE:
        size += len(await loop.sock_recv(sock, 100_000))
    assert size == SIZE


@contextlib.asynccontextmanager
async def sending_a_file(sock):
    """A transport that a file is sent over, its protocol, and the task that sends."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Recorder, sock=sock)
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * SIZE)
        file.seek(0)
        sending = loop.create_task(loop.sendfile(transport, file))
        await until(lambda: loop._watched(transport._sock_fd))
        assert not transport.is_reading()
        yield transport, protocol, sending


def test_a_transport_reads_while_a_file_is_sent(any_loop, pair):
    """sendfile() pauses it, but whoever owns it may resume it."""
    loop = any_loop
    a, b = pair

    async def main():
        async with sending_a_file(a) as (transport, protocol, sending):
            b.send(b"1")
            await asyncio.sleep(0.01)
            assert protocol.data == b""
            transport.resume_reading()
            await until(lambda: protocol.data == b"1")
            transport.pause_reading()
            transport.resume_reading()
            b.send(b"2")
            await until(lambda: protocol.data == b"12")
            await read_all_of_it(loop, b)
            assert await sending == SIZE
        b.send(b"3")
        await until(lambda: protocol.data == b"123")
        transport.write(b"back")
        assert await loop.sock_recv(b, 9) == b"back"
        transport.close()
        await protocol.lost

    loop.run_until_complete(main())


def test_a_transport_ends_while_a_file_is_sent(any_loop, pair):
    loop = any_loop
    a, b = pair

    async def main():
        async with sending_a_file(a) as (transport, protocol, sending):
            transport.resume_reading()
            b.close()
            with pytest.raises(ConnectionError):
                await sending
        await protocol.lost

    loop.run_until_complete(main())


def test_callbacks_beside_a_transport_that_closes(any_loop, pair):
    """It still writes; who looks at its socket meanwhile is asyncio's to allow."""
    loop = any_loop
    a, b = pair

    async def main():
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        transport.write(b"x" * SIZE)
        transport.close()
        seen = []
        loop.add_reader(a, lambda: seen.append(a.recv(9)))
        b.send(b"1")
        await until(lambda: seen == [b"1"])
        loop.remove_reader(a)
        reading = loop.create_task(loop.sock_recv(a, 9))
        await asyncio.sleep(0)
        b.send(b"2")
        assert await reading == b"2"
        loop.add_reader(a, lambda: seen.append(a.recv(9)))
        b.send(b"3")
        await until(lambda: seen == [b"1", b"3"])
        assert not protocol.lost.done()
        await read_all_of_it(loop, b)
        await protocol.lost
        loop._remove_reader(transport._sock_fd)

    loop.run_until_complete(main())


def test_a_callback_that_outlives_a_transport(loop, pair):
    """What is left watches less than before, of a descriptor that is closed."""
    a, b = pair
    c, d = socket.socketpair()

    async def main():
        # While a call waits, the loop looks at all that is watched.
        c.setblocking(False)
        waiting = loop.create_task(loop.sock_recv(c, 9))
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        transport.write(b"x" * SIZE)
        transport.close()
        fd = transport._sock_fd
        loop.add_reader(fd, print)
        await read_all_of_it(loop, b)
        await protocol.lost
        await asyncio.sleep(0.1)
        loop._remove_reader(fd)
        d.send(b"1")
        assert await waiting == b"1"

    with c, d:
        loop.run_until_complete(main())
