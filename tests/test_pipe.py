"""csrc/pipe.c: which files become transports, whole lives of pipes, and what both ends share.

What one end does is in test_pipe_read.py, test_pipe_write.py and test_pipe_terminal.py.
"""

import asyncio
import contextvars
import gc
import itertools
import os
import random
import socket
import tempfile

import ouroloop
import pytest
from network import turns, until
from outcome import Cases, on_both, stock_loop
from pipe_ends import PIPE_SIZE, Events, pipe, terminal

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each


# --- what may be connected


def any_case(loop, connect, file):
    async def main():
        transport, _ = await getattr(loop, connect)(asyncio.Protocol, file)
        transport.close()
        await turns()
        return transport

    return loop.run_until_complete(main())


@cases("connect_read_pipe", "connect_write_pipe")
def regular_file(loop, connect):
    with tempfile.TemporaryFile() as file:
        try:
            return any_case(loop, connect, file)
        finally:
            assert not file.closed


@cases("connect_read_pipe", "connect_write_pipe")
def not_a_file(loop, connect):
    return any_case(loop, connect, 0)


@cases("connect_read_pipe", "connect_write_pipe")
def closed_file(loop, connect):
    with pipe() as (reader, _):
        reader.close()
        return any_case(loop, connect, reader)


@cases("connect_read_pipe", "connect_write_pipe")
def closed_socket(loop, connect):
    sock = socket.socket()
    sock.close()
    return any_case(loop, connect, sock)


@cases("_make_read_pipe_transport", "_make_write_pipe_transport")
def closed_loop(loop, make):
    loop.close()
    with pipe() as (reader, _):
        return getattr(loop, make)(reader, asyncio.Protocol())


@cases("_make_read_pipe_transport", "_make_write_pipe_transport")
def no_protocol(loop, make):
    with pipe() as (reader, writer):
        return getattr(loop, make)(reader if "read" in make else writer, None)


@case
def fifo(loop):
    async def main():
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "fifo")
            os.mkfifo(path)
            r = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
            w = open(path, "wb", 0)
        with r, w:
            _, reader = await loop.connect_read_pipe(Events, r)
            transport, writer = await loop.connect_write_pipe(Events, w)
            transport.write(b"x" * 100)
            await until(lambda: len(reader.data) == 100)
            transport.close()
            return await reader.story(), await writer.story()

    return loop.run_until_complete(main())


REFUSED = {"closed_socket", "closed_loop", "no_protocol"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, debug):
    stock, ours = on_both(case, debug=debug)
    if case.__name__.split("[")[0] in REFUSED:
        # asyncio leaves half a transport behind.
        stock.warnings = [w for w in stock.warnings if "unclosed transport" not in w]
    assert ours.lines() == stock.lines()


# --- random lives, compared


def random_life(new_event_loop, seed):
    """What both ends of a pipe and both protocols see of a random sequence of acts."""
    chance = random.Random(seed)
    acts = [
        chance.choice(
            ["write"] * 6
            + ["big write", "pause", "resume", "limits", "turn", "turn", "turns", "fail"]
            + ["close writer", "close reader", "abort"] * (i > 15)
        )
        for i in range(40)
    ]
    sizes = [chance.choice([1, 100, 5000, 70_000]) for _ in acts]
    loop = new_event_loop()
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(type(context["exception"])))

    class Reader(Events):
        failing = False

        def data_received(self, data):
            super().data_received(data)
            if self.failing:
                self.failing = False
                raise ZeroDivisionError

    async def main():
        with pipe() as (r, w):
            reading, reader = await loop.connect_read_pipe(Reader, r)
            writing, writer = await loop.connect_write_pipe(Events, w)
            sent = 0
            for act, size in zip(acts, sizes, strict=True):
                if act in ("write", "big write"):
                    size *= 10 if act == "big write" else 1
                    sent += 0 if writing.is_closing() else size
                    writing.write(bytes(size))
                elif act == "pause":
                    reading.pause_reading()
                elif act == "resume":
                    reading.resume_reading()
                elif act == "limits":
                    writing.set_write_buffer_limits(size)
                elif act == "fail":
                    reader.failing = True
                elif act == "close writer":
                    writing.close()
                elif act == "close reader":
                    await turns(20)
                    reading.close()
                elif act == "abort":
                    if not writing.is_closing():  # Else asyncio's fails.
                        writing.abort()
                    sent = None
                    break
                else:
                    await turns(1 if act == "turn" else 10)
            reading.resume_reading()
            writing.close()
            ends = [await asyncio.wait_for(end, 5) for end in (reader.lost, writer.lost)]
            complete = sent is None or "eof" not in reader.calls or len(reader.data) == sent
            matters_of_time = {"data"}
            if "close reader" in acts:
                # So is whether all was sent and received by then.
                ends.pop()
                matters_of_time.add("eof")
            calls = (
                [c for c in reader.calls if c not in matters_of_time],
                set(writer.calls) - {"pause", "resume"},
            )
            return calls, [type(end) for end in ends], complete, set(reports) <= {ZeroDivisionError}

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.parametrize("seed", range(60))
def test_random_lives(seed):
    stock = random_life(stock_loop, seed)
    assert random_life(ouroloop.new_event_loop, seed) == stock
    assert stock[2:] == (True, True)


# --- what the loop and Python see of both ends


def test_repr(loop):
    async def main():
        with pipe() as (r, w):
            reading, reader = await loop.connect_read_pipe(Events, r)
            writing, writer = await loop.connect_write_pipe(Events, w)
            await turns()
            assert repr(reading) == f"<ReadPipeTransport fd={r.fileno()} polling>"
            assert repr(writing) == f"<WritePipeTransport fd={w.fileno()} idle bufsize=0>"
            reading.pause_reading()
            assert repr(reading) == f"<ReadPipeTransport fd={r.fileno()} idle>"
            writing.write(bytes(PIPE_SIZE + 100))
            fd = w.fileno()
            assert repr(writing) == f"<WritePipeTransport fd={fd} polling bufsize=100>"
            writing.close()
            assert repr(writing) == f"<WritePipeTransport closing fd={fd} polling bufsize=100>"
            reading.resume_reading()
            await writer.lost
            await reader.lost
            await turns()
            assert repr(writing) == f"<WritePipeTransport closed fd={fd} closed>"
            assert repr(reading).startswith("<ReadPipeTransport closed fd=")

    loop.run_until_complete(main())


def contexts_of_callbacks(loop):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    def see(protocol, *_):
        seen.append(variable.get())

    async def main():
        with pipe() as (r, w):
            variable.set("connects")
            does = dict.fromkeys(("made", "data", "eof", "lost", "pause", "resume"), see)
            reading, reader = await loop.connect_read_pipe(lambda: Events(**does), r)
            writing, writer = await loop.connect_write_pipe(lambda: Events(**does), w)
            variable.set("later")
            reading.pause_reading()
            loop.call_soon(
                lambda: writing.write(bytes(5 * PIPE_SIZE)), context=contextvars.copy_context()
            )
            await turns()
            reading.resume_reading()
            await until(lambda: len(reader.data) == 5 * PIPE_SIZE)
            writing.close()
            await reader.lost
            await writer.lost

    loop.run_until_complete(main())
    return [key for key, _ in itertools.groupby(seen)]


def test_callbacks_run_in_the_contexts_that_asyncio_gives_them(loop):
    """Of whoever connected, resumed reading, or wrote more than there was room for."""
    stock = stock_loop()
    try:
        expected = contexts_of_callbacks(stock)
    finally:
        stock.close()
    assert {"connects", "later"} <= set(expected)
    assert contexts_of_callbacks(loop) == expected


def test_what_is_connected_is_known_to_the_collector(loop):
    async def main():
        with pipe() as (r, w):
            reading, reader = await loop.connect_read_pipe(Events, r)
            writing, writer = await loop.connect_write_pipe(Events, w)
            for transport, protocol in ((reading, reader), (writing, writer)):
                assert protocol in gc.get_referents(transport)
                assert gc.is_tracked(transport)
                transport.note = "has a dict"
                transport.close()
            await reader.lost
            await writer.lost

    loop.run_until_complete(main())


def test_collection_in_every_callback(loop):
    def collect(*_):
        gc.collect()

    async def main():
        for _ in range(3):
            with pipe() as (r, w):
                does = dict.fromkeys(("made", "data", "eof", "lost", "pause", "resume"), collect)
                _, reader = await loop.connect_read_pipe(lambda: Events(**does), r)  # noqa: B023
                writing, writer = await loop.connect_write_pipe(lambda: Events(**does), w)  # noqa: B023
                writing.write(bytes(3 * PIPE_SIZE))
                writing.close()
                await writer.lost
                await reader.lost
                assert len(reader.data) == 3 * PIPE_SIZE
                assert [call for call in reader.calls if call != "data"] == ["made", "eof", "lost"]
                assert [writer.calls[0], writer.calls[-1]] == ["made", "lost"]

    loop.run_until_complete(main())


# --- ends that come from elsewhere


@pytest.mark.parametrize("side", ["read", "write"])
def test_loop_closes_with_an_open_pipe(side):
    loop = ouroloop.new_event_loop()
    with pipe() as (reader, writer):
        file = reader if side == "read" else writer
        connect = getattr(loop, f"connect_{side}_pipe")
        transport, _ = loop.run_until_complete(connect(Events, file))
        with pytest.warns(ResourceWarning, match="unclosed transport <.*PipeTransport fd=.* open>"):
            loop.close()
        assert not file.closed
        assert repr(transport).endswith(f"Transport fd={file.fileno()} open>")
        transport.close()
        assert transport.is_closing()
        if side == "write":
            transport.abort()
            transport.write(b"x")
        with pytest.raises(AttributeError):
            transport._pipe = 3
        transport._pipe = None
        assert transport._pipe is None


@pytest.mark.parametrize("side", ["read", "write"])
def test_a_pipe_closed_by_the_user(loop, side):
    """Nothing is heard of it any more; the loop goes on."""

    async def main():
        with pipe() as (reader, writer):
            file, other = (reader, writer) if side == "read" else (writer, reader)
            transport, protocol = await getattr(loop, f"connect_{side}_pipe")(Events, file)
            file.close()
            other.close()
            await turns()
            transport.close()
            await protocol.lost
            assert protocol.calls == ["made", "lost"]

    loop.run_until_complete(main())


@pytest.mark.parametrize("name", ["data", "eof", "lost", "made"])
def test_a_fatal_exception_leaves_the_loop(loop, name):
    def leave(*_):
        raise KeyboardInterrupt

    with pipe() as (r, w):
        w.write(b"x")
        w.close()

        made = []

        async def main():
            made.append(Events(**{name: leave}))
            made.append(loop._make_read_pipe_transport(r, made[0]))
            await asyncio.wait_for(asyncio.Event().wait(), 5)

        task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        protocol, transport = made
        task.cancel()
        transport.close()
        loop.run_until_complete(asyncio.wait([task, protocol.lost]))
        loop.run_until_complete(turns())


def test_descriptors_are_given_back(loop):
    async def main():
        for _ in range(20):
            for connect in (loop.connect_read_pipe, loop.connect_write_pipe):
                with terminal() as (ours, _):
                    transport, protocol = await connect(Events, ours)
                    transport.close()
                    await protocol.lost
            with pipe() as (r, w):
                _, reader = await loop.connect_read_pipe(Events, r)
                transport, _ = await loop.connect_write_pipe(Events, w)
                transport.close()
                await reader.lost

    loop.run_until_complete(main())
    before = len(os.listdir("/proc/self/fd"))
    loop.run_until_complete(main())
    assert len(os.listdir("/proc/self/fd")) == before
