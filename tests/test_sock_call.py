"""What sock_recv() and its kin return: a coroutine, driven by hand, and what it keeps alive."""

import asyncio
import gc
import inspect
import os
import socket
import types
import warnings
import weakref

import ouroloop
import pytest
from network import settle
from plain_sockets import CALLS, HERE, LARGE

pytestmark = pytest.mark.usefixtures("frozen_garbage")


# --- what a call is


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


# --- loops of the user's


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
