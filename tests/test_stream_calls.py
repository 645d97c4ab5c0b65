"""`await reader.readline()` without a coroutine: results, errors and whoever looks at it."""

import asyncio
import contextlib
import gc
import inspect

import pytest
from connection import on


@pytest.mark.parametrize(
    ("call", "sent", "result"),
    [
        (lambda reader: reader.readline(), b"a\nb", b"a\n"),
        (lambda reader: reader.readexactly(2), b"abc", b"ab"),
        (lambda reader: reader.readexactly(5000), b"x" * 5001, b"x" * 5000),
        (lambda reader: reader.readuntil(b"bc"), b"abcbc", b"abc"),
        (lambda reader: reader.readuntil(separator=b"bc"), b"abcbc", b"abc"),
        (lambda reader: reader.read(2), b"abc", b"ab"),
        (lambda reader: reader.read(n=2), b"abc", b"ab"),
        (lambda reader: reader.read(9), b"abc", b"abc"),
    ],
)
@pytest.mark.parametrize("early", [False, True])
def test_results(loop, call, sent, result, early):
    @on(loop)
    async def _(connection):
        if early:
            connection.peer.send(sent)
            while not connection.reader._buffer:
                await asyncio.sleep(0.001)
        task = await connection.waiting(call(connection.reader))
        if not early:
            connection.peer.send(sent)
        assert await task == result


def test_results_of_direct_awaits(loop):
    @on(loop)
    async def _(connection):
        reader = connection.reader

        async def all_ways():
            return (
                await reader.readline(),
                await reader.readexactly(3),
                await reader.readexactly(5000),
                await reader.readuntil(b"--"),
                await reader.readuntil(),
                await reader.read(2),
                await reader.read(100),
            )

        task = await connection.waiting(all_ways())
        expected = (b"line\n", b"abc", b"x" * 5000, b"until--", b"\n", b"yz", b"the rest")
        connection.peer.send(b"".join(expected))
        assert await task == expected
        assert reader._buffer == b""


def test_a_reader_without_a_transport(loop):
    async def main():
        reader = asyncio.StreamReader()

        async def read():
            return await reader.readline()

        task = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        reader.feed_data(b"a\n")
        assert await task == b"a\n"
        reader.feed_data(b"b")
        reader.feed_eof()
        assert await read() == b"b"
        assert await read() == b""

    loop.run_until_complete(main())


def test_what_it_waits_for_looks_like_a_coroutine(loop):
    @on(loop)
    async def _(connection):
        coroutine = connection.readline()
        task = await connection.waiting(coroutine)
        inner = coroutine.cr_await
        assert inspect.iscoroutine(inner)
        assert asyncio.iscoroutine(inner)
        assert repr(inner).startswith("<coroutine object StreamReader.readline at 0x")
        assert inner.__name__ == "readline"
        assert inner.__qualname__ == "StreamReader.readline"
        assert inner.cr_code is asyncio.StreamReader.readline.__code__
        assert inner.cr_frame.f_locals["self"] is connection.reader
        assert inner.cr_await.__qualname__ == "StreamReader.readuntil"
        assert inner.cr_await.cr_await.__qualname__ == "StreamReader._wait_for_data"
        assert not inner.cr_running
        with pytest.raises(AttributeError, match="no_such"):
            _ = inner.no_such
        connection.peer.send(b"a\n")
        assert await task == b"a\n"


def test_throw_and_close(loop):
    @on(loop)
    async def _(connection):
        reader = connection.reader
        for action in (
            lambda inner: inner.throw(ZeroDivisionError("thrown")),
            lambda inner: inner.close(),
        ):
            coroutine = connection.readline()
            assert asyncio.isfuture(coroutine.send(None))
            assert reader._waiter is not None
            inner = coroutine.cr_await
            with contextlib.suppress(ZeroDivisionError):
                action(inner)
            assert reader._waiter is None
            with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
                inner.send(None)
            coroutine.close()


def test_a_task_that_is_destroyed(loop):
    @on(loop)
    async def _(connection):
        coroutine = connection.readline()
        coroutine.send(None)
        assert connection.reader._waiter is not None
        del coroutine
        assert connection.reader._waiter is None
        coroutine = connection.readline()
        coroutine.send(None)
        cycle = [coroutine, connection.reader]
        cycle.append(cycle)
        del cycle, coroutine
        gc.collect()
        assert connection.reader._waiter is None


def test_somebody_else_takes_what_it_was_woken_for(loop):
    """read() waits once and then returns what is left, as asyncio's does."""

    @on(loop)
    async def _(connection):
        waiting = await connection.waiting(connection.reader.read(5))
        connection.reader.feed_data(b"taken")
        assert await connection.reader.readexactly(5) == b"taken"
        assert await waiting == b""
        assert connection.reader._waiter is None


def test_cancelled_while_it_waits(loop):
    @on(loop)
    async def _(connection):
        task = await connection.waiting(connection.readline())
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.reader._waiter is None
        connection.peer.send(b"a\n")
        assert await connection.readline() == b"a\n"


def test_cancelled_when_input_has_come(loop):
    @on(loop)
    async def _(connection):
        task = await connection.waiting(connection.readline())
        connection.reader.feed_data(b"a\n")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.reader._buffer == b"a\n"


def test_the_same_traceback(loop):
    async def failing(connection):
        async def read():
            return await connection.reader.readexactly(10)

        task = await connection.waiting(read())
        connection.peer.send(b"ab")
        connection.peer.close()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await task
        assert caught.value.partial == b"ab"
        return [(entry.name, entry.lineno) for entry in caught.traceback]

    other = asyncio.new_event_loop()
    assert on(loop)(failing) == on(other)(failing)
    other.close()


def test_a_loop_with_a_create_future_of_its_own(loop):
    made = []
    plain = type(loop).create_future

    def create_future():
        made.append(plain(loop))
        return made[-1]

    @on(loop)
    async def _(connection):
        loop.create_future = create_future
        try:
            task = await connection.waiting(connection.readline())
            assert connection.reader._waiter is made[-1]
            connection.peer.send(b"a\n")
            assert await task == b"a\n"
        finally:
            del loop.create_future
        count = len(made)
        connection.peer.send(b"b\n")
        assert await connection.readline() == b"b\n"
        assert len(made) == count


def test_drain_waits_under_flow_control(loop):
    @on(loop)
    async def _(connection):
        async def drain():
            await connection.writer.drain()

        connection.writer.transport.set_write_buffer_limits(high=10)
        connection.writer.write(b"x" * 3_000_000)
        task = await connection.waiting(drain())
        assert not task.done()
        connection.peer.setblocking(False)
        received = 0
        while received < 3_000_000:
            try:
                received += len(connection.peer.recv(1 << 20))
            except BlockingIOError:
                await asyncio.sleep(0)
        await task
        assert await drain() is None


def test_drain_raises_what_the_reader_has(loop):
    @on(loop)
    async def _(connection):
        connection.reader.set_exception(ZeroDivisionError("set"))
        with pytest.raises(ZeroDivisionError, match="set"):
            await connection.writer.drain()
        connection.reader._exception = None


def test_large_results_are_not_kept(run_script):
    assert run_script("stream_calls.py", "kept").stdout.splitlines()[-1] == "0"


def test_a_future_type_of_the_programs(loop, monkeypatch):
    Own = type("Own", (asyncio.futures._PyFuture,), {})

    @on(loop)
    async def _(connection):
        monkeypatch.setattr(asyncio.futures, "Future", Own)
        task = await connection.waiting(connection.reader.readexactly(5000))
        for part in (b"x" * 100, b"x" * 5000):
            connection.peer.send(part)
            while not connection.reader._buffer:
                await asyncio.sleep(0)
            waiter = connection.reader._waiter
            assert waiter is None or type(waiter) is Own
        assert await task == b"x" * 5000
        monkeypatch.undo()
        assert await connection.reader.readexactly(100) == b"x" * 100
