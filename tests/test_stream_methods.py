"""How the methods of asyncio's streams are called, and who might notice."""

import asyncio
import inspect
import sys
import types

import ouroloop
import pytest
from connection import on

# 3.11 calls Python functions in only one way. Code that was traced once, by a debugger or another
# test, gets coroutines, so only a process of its own can tell.
SUPPORTED = not (3, 11) <= sys.version_info < (3, 12)
ACTIVE = SUPPORTED and ouroloop.build_info()["fast_types"]
EXPECTED_TYPE = "StreamCall" if ACTIVE else "coroutine"
LINES = [EXPECTED_TYPE, repr(b"a line\n"), repr(b"answer"), repr(b"more")]


def test_functions_stay_what_they_are():
    for owner, name in (
        (asyncio.StreamReader, "read"),
        (asyncio.StreamReader, "readline"),
        (asyncio.StreamReader, "readexactly"),
        (asyncio.StreamReader, "readuntil"),
        (asyncio.StreamWriter, "drain"),
    ):
        function = getattr(owner, name)
        assert type(function) is types.FunctionType
        assert inspect.iscoroutinefunction(function)
        assert function.__module__ == "asyncio.streams"
        assert inspect.getsource(function).lstrip().startswith(f"async def {name}(")


def test_a_call_that_is_awaited_at_once(loop):
    @on(loop)
    async def _(connection):
        coroutine = connection.readline()
        task = await connection.waiting(coroutine)
        assert type(coroutine.cr_await).__name__ in {EXPECTED_TYPE, "coroutine"}
        connection.peer.send(b"a line\nrest")
        assert await task == b"a line\n"
        assert connection.reader._buffer == b"rest"
        assert connection.reader._waiter is None


def test_a_call_that_is_kept_is_a_coroutine(loop):
    @on(loop)
    async def _(connection):
        calls = [
            connection.reader.readline(),
            connection.reader.read(5),
            connection.writer.drain(),
        ]
        for call in calls:
            assert type(call) is types.CoroutineType
            call.close()
        call = connection.reader.readexactly(3)
        connection.peer.send(b"abc")
        assert await call == b"abc"


def test_a_call_that_is_not_awaited_is_warned_of(loop):
    @on(loop)
    async def _(connection):
        with pytest.warns(RuntimeWarning, match="'StreamReader.readline' was never awaited"):
            connection.reader.readline()


def test_a_call_in_a_task_of_its_own(loop):
    @on(loop)
    async def _(connection):
        task = await connection.waiting(connection.reader.readline())
        assert "StreamReader.readline()" in repr(task)
        connection.peer.send(b"a\n")
        assert await task == b"a\n"
        connection.peer.send(b"b\n")
        assert await asyncio.wait_for(connection.reader.readline(), 10) == b"b\n"


def test_another_loop_gets_coroutines(loop):
    other = asyncio.new_event_loop()

    @on(other)
    async def _(connection):
        coroutine = connection.readline()
        task = await connection.waiting(coroutine)
        assert type(coroutine.cr_await) is types.CoroutineType
        connection.peer.send(b"a\n")
        assert await task == b"a\n"

    other.close()


def test_a_subclass_gets_coroutines(loop):
    class Reader(asyncio.StreamReader):
        pass

    async def main():
        reader = Reader()

        async def read():
            return await reader.readline()

        coroutine = read()
        task = asyncio.ensure_future(coroutine)
        await asyncio.sleep(0)
        assert type(coroutine.cr_await) is types.CoroutineType
        reader.feed_data(b"a\n")
        assert await task == b"a\n"

    loop.run_until_complete(main())


def test_code_that_was_replaced_is_run(loop):
    function = asyncio.StreamReader.readline
    before = function.__code__

    async def readline(self):
        return "replaced"

    @on(loop)
    async def _(connection):
        function.__code__ = readline.__code__
        try:
            assert await connection.reader.readline() == "replaced"
        finally:
            function.__code__ = before
        connection.peer.send(b"a\n")
        assert await connection.reader.readline() == b"a\n"


def test_switched_off(run_script):
    assert run_script("stream_calls.py").stdout.splitlines() == LINES
    for value, kind in (("1", "coroutine"), ("0", EXPECTED_TYPE), ("", EXPECTED_TYPE)):
        done = run_script("stream_calls.py", env={"OUROLOOP_STOCK_STREAMS": value})
        assert done.stdout.splitlines() == [kind, *LINES[1:]]


def test_tracing_sees_the_coroutines(run_script):
    lines = run_script("stream_calls.py", "trace").stdout.splitlines()
    assert lines == [*LINES, "readline"]


def test_loaded_twice(run_script):
    lines = run_script("stream_calls.py", "reload").stdout.splitlines()
    answers = [line for line in lines if line not in ("coroutine", "StreamCall")]
    assert answers == LINES[1:] * 4
    assert lines[-4] == "coroutine"
