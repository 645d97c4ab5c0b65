"""csrc/poll.c: add_reader(), add_writer(), and who uses which descriptor."""

import asyncio
import contextlib
import fcntl
import gc
import os
import re
import selectors
import signal
import socket
import subprocess
import tempfile
import time
import weakref

import pytest
from network import Recorder, connected, until


def turn(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


# --- callbacks


def test_reader(loop, pair):
    a, b = pair
    seen = []
    assert loop.add_reader(a, lambda *args: seen.append((args, a.recv(9))), 1, "two") is None
    turn(loop)
    assert seen == []
    b.send(b"x")
    turn(loop)
    turn(loop)
    assert seen == [((1, "two"), b"x")]
    assert loop.remove_reader(a) is True
    assert loop.remove_reader(a) is False


def test_a_reader_is_called_until_there_is_nothing_to_read(loop, pair):
    a, b = pair
    calls = []
    loop.add_reader(a, calls.append, 1)
    b.send(b"x")
    for _ in range(3):
        turn(loop)
    assert len(calls) == 3
    loop.remove_reader(a)
    turn(loop)
    assert len(calls) == 3


def test_writer(loop, pair):
    a, _ = pair
    calls = []
    assert loop.add_writer(a, calls.append, "w") is None
    turn(loop)
    assert calls == ["w"]
    assert loop.remove_writer(a) is True
    assert loop.remove_writer(a) is False
    turn(loop)
    assert calls == ["w"]


def test_reader_and_writer_of_one_descriptor(loop, pair):
    a, b = pair
    order = []
    loop.add_writer(a, order.append, "w")
    loop.add_reader(a, order.append, "r")
    b.send(b"x")
    turn(loop)
    assert order == ["r", "w"]
    loop.remove_writer(a)
    turn(loop)
    assert order == ["r", "w", "r"]
    loop.remove_reader(a)
    turn(loop)
    assert order == ["r", "w", "r"]


def test_they_queue_behind_what_is_ready(loop, pair):
    a, b = pair
    order = []

    def ready():
        order.append("reader")
        loop.remove_reader(a)

    loop.add_reader(a, ready)
    b.send(b"x")
    loop.call_soon(order.append, "soon")
    turn(loop)
    turn(loop)
    assert order == ["soon", "reader"]


def test_a_callback_may_remove_the_other_of_the_same_turn(loop, pair):
    a, b = pair
    order = []

    def ready():
        order.append("reader")
        order.append(loop.remove_writer(a))
        loop.remove_reader(a)

    loop.add_reader(a, ready)
    loop.add_writer(a, order.append, "writer")
    b.send(b"x")
    turn(loop)
    turn(loop)
    assert order == ["reader", True]


def test_a_new_callback_replaces_and_cancels_the_old_one(loop, pair):
    a, b = pair
    order = []
    first = loop._add_reader(a, order.append, "first")
    second = loop._add_reader(a, order.append, "second")
    assert isinstance(first, asyncio.Handle)
    assert first.cancelled()
    assert not second.cancelled()
    b.send(b"x")
    turn(loop)
    assert order == ["second"]
    loop.remove_reader(a)
    assert second.cancelled()


def test_a_cancelled_handle_is_not_called(loop, pair):
    a, _ = pair
    order = []
    handle = loop._add_writer(a, order.append, 1)
    handle.cancel()
    turn(loop)
    assert order == []
    loop.remove_writer(a)


def test_an_error_is_reported_and_the_callback_stays(loop, pair, reports):
    a, _ = pair
    loop.add_writer(a, lambda: 1 / 0)
    turn(loop)
    turn(loop)
    loop.remove_writer(a)
    taken = reports.take()
    assert [type(report["exception"]) for report in taken] == [ZeroDivisionError] * 2
    assert all("Exception in callback" in report["message"] for report in taken)


def test_slow_callbacks_are_named(loop, pair, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    loop.add_writer(pair[0], time.sleep, 0.02)
    turn(loop)
    turn(loop)
    loop.remove_writer(pair[0])
    named = [re.search(r"sleep.* took \d+\.\d{3} sec", text) for text in caplog.messages]
    assert len([each for each in named if each]) == 2


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_exits_leave_the_loop(loop, pair, exception):
    a, _ = pair

    def leave():
        loop.remove_writer(a)
        raise exception

    loop.add_writer(a, leave)
    with pytest.raises(exception):
        loop.run_forever()
    turn(loop)


def test_the_end_of_a_pipe_is_readable(loop):
    r, w = os.pipe()
    try:
        seen = []
        loop.add_reader(r, lambda: seen.append(os.read(r, 9)))
        os.close(w)
        turn(loop)
        assert seen == [b""]
        loop.remove_reader(r)
    finally:
        os.close(r)


def test_an_error_of_the_descriptor_wakes_whoever_waits(loop):
    """epoll reports the write end of a pipe without readers as an error only."""
    r, w = os.pipe()
    try:
        seen = []
        loop.add_reader(w, seen.append, "r")
        loop.add_writer(w, seen.append, "w")
        os.close(r)
        turn(loop)
        turn(loop)
        assert seen == ["r", "w"] * 2
        loop.remove_reader(w)
        loop.remove_writer(w)
        turn(loop)
        assert seen == ["r", "w"] * 2
    finally:
        os.close(w)


def test_many_descriptors(loop):
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(200)]
        for a, b in pairs:
            stack.enter_context(a)
            stack.enter_context(b)
        seen = []
        for number, (a, _) in enumerate(pairs):
            loop.add_reader(a, lambda n, a: (seen.append(n), a.recv(9)), number, a)
        for _, b in pairs:
            b.send(b"x")
        turn(loop)
        assert sorted(seen) == list(range(200))
        for a, _ in pairs:
            assert loop.remove_reader(a)


# --- what may be given


def test_numbers_and_objects_mean_the_same(loop, pair):
    a, _ = pair

    class Wrapped:
        def fileno(self):
            return a.fileno()

    loop.add_reader(Wrapped(), print)
    assert loop.remove_reader(a.fileno()) is True
    loop.add_reader(a.fileno(), print)
    assert loop.remove_reader(Wrapped()) is True


class Odd:
    def __init__(self, result):
        self.result = result

    def fileno(self):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("junk", "error", "text"),
    [
        (-1, ValueError, "Invalid file descriptor: -1"),
        (-(2**70), ValueError, f"Invalid file descriptor: {-(2**70)}"),
        (Odd(-1), ValueError, "Invalid file descriptor: -1"),
        ("1", ValueError, "Invalid file object: '1'"),
        (None, ValueError, "Invalid file object: None"),
        (1.5, ValueError, "Invalid file object: 1.5"),
        (Odd(ValueError()), ValueError, "Invalid file object: "),
        (Odd("x"), ValueError, "Invalid file object: "),
        (Odd(KeyError("mine")), KeyError, "mine"),
    ],
)
def test_junk_is_refused(loop, junk, error, text):
    for method in (loop.add_reader, loop.add_writer):
        with pytest.raises(error) as caught:
            method(junk, print)
        assert text in str(caught.value)
    for method in (loop.remove_reader, loop.remove_writer):
        with pytest.raises(error) as caught:
            method(junk)
        assert text in str(caught.value)


def test_numbers_that_are_no_descriptors(loop):
    for number, error in ((2**31, OverflowError), (2**70, OverflowError), (10**6, OSError)):
        with pytest.raises(error):
            loop.add_reader(number, print)
        assert loop.remove_reader(number) is False
    with pytest.raises(OSError, match=r"^\[Errno 9\] Bad file descriptor$"):
        loop.add_reader(10**6, print)


def test_regular_files_are_refused(loop):
    with tempfile.TemporaryFile() as file:
        with pytest.raises(PermissionError, match=r"^\[Errno 1\] Operation not permitted$"):
            loop.add_reader(file, print)
        assert loop.remove_reader(file) is False


def test_a_closed_socket_is_still_known_as_an_object(loop):
    a, b = socket.socketpair()
    with b:
        loop.add_reader(a, print)
        a.close()
        assert loop.remove_reader(a) is True
        with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
            loop.remove_reader(a)


def test_without_arguments(loop):
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        loop.add_reader()
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        loop.remove_writer()
    with pytest.raises(TypeError):
        loop._add_reader(0)
    with pytest.raises(TypeError):
        loop._add_reader(0, print, keyword=1)


def test_a_closed_loop(pair):
    import ouroloop

    loop = ouroloop.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_reader(pair[0], print)
    assert loop.remove_reader(pair[0]) is False


def test_a_loop_that_fileno_closes(pair):
    import ouroloop

    loop = ouroloop.new_event_loop()

    class File:
        calls = 0

        def fileno(self):
            self.calls += 1
            if self.calls == 2:
                loop.close()
            return pair[0].fileno()

    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_reader(File(), print)


# --- descriptors closed behind the loop's back


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_closed_before_the_next_poll(loop, method):
    """libuv would abort the process."""
    a, b = socket.socketpair()
    with b:
        turn(loop)
        getattr(loop, method)(a, print)
        a.close()
        turn(loop)
        turn(loop)
        assert getattr(loop, method.replace("add", "remove"))(a) is True


def test_closed_and_the_number_now_a_regular_files(loop):
    """libuv would abort here, too: epoll takes no regular files."""
    turn(loop)
    a, b = socket.socketpair()
    with b:
        loop.add_reader(a, print)
        number = a.fileno()
        a.close()
        with tempfile.TemporaryFile() as file:
            assert file.fileno() == number
            turn(loop)
            assert loop.remove_reader(number) is True


def test_closed_and_the_number_used_again(loop):
    seen = []
    a, b = socket.socketpair()
    number = a.fileno()
    loop.add_reader(a, seen.append, "old")
    turn(loop)
    a.close()
    b.close()
    c, d = socket.socketpair()
    with c, d:
        assert number in (c.fileno(), d.fileno())
        mine, other = (c, d) if c.fileno() == number else (d, c)
        assert loop.remove_reader(mine) is True
        loop.add_reader(mine, seen.append, "new")
        other.send(b"x")
        turn(loop)
        assert seen == ["new"]
        loop.remove_reader(mine)


def test_a_transport_takes_a_number_over(loop, pair):
    """A callback left over from the number's last owner is cancelled."""

    async def main():
        left_over = loop._add_reader(number, print)
        a, b = socket.socketpair()
        assert a.fileno() != number
        os.dup2(a.fileno(), number)
        a.close()
        taken = socket.socket(fileno=number)
        taken.setblocking(False)
        with b:
            transport = loop._make_socket_transport(taken, Recorder())
            assert left_over.cancelled()
            await until(lambda: transport._protocol.calls)
            b.send(b"x")
            await until(lambda: transport._protocol.data == b"x")
            transport.close()
            await transport._protocol.lost

    number = os.dup(pair[0].fileno())
    loop.run_until_complete(main())


# --- other things that stay as they were


@pytest.mark.parametrize("nonblocking", [False, True])
def test_the_blocking_mode_is_the_users(loop, pair, nonblocking):
    """libuv makes what it polls non-blocking, standard input of the shell included."""
    a, _ = pair
    a.setblocking(not nonblocking)
    loop.add_reader(a, print)
    turn(loop)
    assert bool(fcntl.fcntl(a, fcntl.F_GETFL) & os.O_NONBLOCK) is nonblocking
    loop.remove_reader(a)


def test_the_selector_that_asyncio_sees(loop, pair):
    fd = pair[0].fileno()
    selector = loop._selector
    assert selector.get_map().get(fd) is None
    with pytest.raises(KeyError):
        selector.get_key(fd)
    loop.add_reader(fd, print)
    assert selector.get_key(fd).events == selectors.EVENT_READ
    loop.add_writer(fd, print)
    assert selector.get_key(fd).events == selectors.EVENT_READ | selectors.EVENT_WRITE
    loop.remove_reader(fd)
    assert selector.get_key(fd).events == selectors.EVENT_WRITE
    loop.remove_writer(fd)
    assert selector.get_map().get(fd) is None


def test_the_loops_own_descriptors_take_numbers_over(loop):
    """The first run opens a pipe for signals, the first wait a timer's descriptor."""
    sockets = []
    for wait in (0, 0.001):
        for sock in socket.socketpair():
            loop.add_reader(sock, print)
            sock.close()
            sockets.append(sock)
        loop.call_later(wait, loop.stop)
        loop.run_forever()
    for sock in sockets:
        with contextlib.suppress(ValueError):  # The loop has taken its number over.
            loop.remove_reader(sock)
    # It still hears of signals, and wakes up in time.
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "signal")
    loop.call_later(0.001, os.kill, os.getpid(), signal.SIGUSR1)
    loop.run_until_complete(until(lambda: seen))
    assert loop.remove_signal_handler(signal.SIGUSR1)


def test_a_transports_descriptor_is_refused(loop):
    async def main():
        async with connected() as (transport, _):
            sock = transport.get_extra_info("socket")
            for file in (sock, sock.fileno()):
                for method in (loop.add_reader, loop.add_writer):
                    with pytest.raises(RuntimeError, match=r"^File descriptor .* is used by tr"):
                        method(file, print)
                for method in (loop.remove_reader, loop.remove_writer):
                    with pytest.raises(RuntimeError, match="is used by transport"):
                        method(file)
            number = sock.fileno()
            transport.close()
            assert loop.remove_reader(number) is False

    loop.run_until_complete(main())


def test_so_is_that_of_asyncios_own_transports(loop):
    async def main():
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.setblocking(False)
        transport = asyncio.selector_events._SelectorDatagramTransport(
            loop, sock, asyncio.DatagramProtocol()
        )
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="is used by transport <_SelectorDatagram"):
            loop.add_reader(transport.get_extra_info("socket"), print)
        transport.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_the_callback_is_held_and_let_go(loop, pair):
    class Callback:
        def __call__(self):
            pass

    callback = Callback()
    gone = weakref.ref(callback)
    loop.add_reader(pair[0], callback)
    del callback
    gc.collect()
    assert gone() is not None
    loop.remove_reader(pair[0])
    assert gone() is None


def test_closing_the_loop_cancels_but_does_not_close(pair):
    import ouroloop

    loop = ouroloop.new_event_loop()
    handle = loop._add_reader(pair[0], print)
    loop.close()
    assert handle.cancelled()
    pair[0].send(b"still open")


def test_a_forgotten_loop_with_readers_is_collected(pair):
    import ouroloop

    def forget():
        loop = ouroloop.new_event_loop()
        loop.add_reader(pair[0], loop.stop)
        gone = weakref.ref(loop)
        del loop
        gc.collect()
        return gone

    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gone = forget()
    assert gone() is None


def test_a_childs_pipes(loop):
    """Descriptors of another kind, watched through a whole life."""
    seen = bytearray()

    async def main():
        done = loop.create_future()

        def ready():
            data = os.read(process.stdout.fileno(), 1 << 16)
            seen.extend(data)
            if not data:
                loop.remove_reader(process.stdout)
                done.set_result(None)

        with subprocess.Popen(["echo", "hello"], stdout=subprocess.PIPE) as process:
            loop.add_reader(process.stdout, ready)
            await done

    loop.run_until_complete(main())
    assert seen == b"hello\n"
