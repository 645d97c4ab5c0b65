"""csrc/pipe.c: pipes, FIFOs, sockets and terminals as transports, compared with asyncio's own."""

import array
import asyncio
import contextlib
import contextvars
import fcntl
import gc
import itertools
import logging
import os
import random
import resource
import select
import socket
import sys
import tempfile
import tty

import ouroloop
import pytest
from network import Recorder, turns, until
from outcome import Cases, on_both, stock_loop

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each
PIPE_SIZE = 64 * 1024


@contextlib.contextmanager
def pipe():
    """A pipe as two unbuffered files."""
    r, w = os.pipe()
    with open(r, "rb", 0) as reader, open(w, "wb", 0) as writer:
        yield reader, writer


@contextlib.contextmanager
def terminal():
    """Both ends of a pty in raw mode, as files for reading and writing."""
    master, slave = os.openpty()
    tty.setraw(slave)
    with open(master, "r+b", 0) as ours, open(slave, "r+b", 0) as theirs:
        yield ours, theirs


@contextlib.contextmanager
def log_of(logger="asyncio", level=logging.WARNING):
    """The messages that are logged meanwhile."""
    messages = []
    handler = logging.Handler(level)
    handler.emit = lambda record: messages.append(record.getMessage())
    log = logging.getLogger(logger)
    before = log.level
    log.addHandler(handler)
    log.setLevel(level)
    try:
        yield messages
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


class Events(Recorder):
    """A recorder whose calls may do something else, or fail."""

    def __init__(self, **does):
        super().__init__()
        self.does = does
        self.pieces = []

    def told(self, name, *args):
        if name in self.does:
            self.does[name](self, *args)

    def connection_made(self, transport):
        super().connection_made(transport)
        self.told("made")

    def data_received(self, data):
        super().data_received(data)
        self.pieces.append(len(data))
        self.told("data", data)

    def eof_received(self):
        super().eof_received()
        self.told("eof")

    def pause_writing(self):
        super().pause_writing()
        self.told("pause")

    def resume_writing(self):
        super().resume_writing()
        self.told("resume")

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.told("lost", exc)

    async def story(self):
        """What happened, once it is over."""
        exc = await asyncio.wait_for(self.lost, 5)
        await turns()
        t = self.transport
        return [
            *self.calls,
            len(self.data),
            type(exc).__name__,
            getattr(exc, "errno", None),
            t.is_closing(),
            t.get_protocol(),
            t.get_extra_info("pipe").closed,
        ]


def fail(*_):
    raise ZeroDivisionError


def reading(loop, act, *, end=True, **does):
    """Connect the reading end, `act` on (transport, protocol, writer), close the writing end."""

    async def main():
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_read_pipe(lambda: Events(**does), reader)
            value = act(transport, protocol, writer)
            if value is not None:
                await value
            if end:
                writer.close()
            return await protocol.story()

    return loop.run_until_complete(main())


def writing(loop, act, *, size=None, **does):
    """Connect the writing end and `act` on (transport, protocol, reader)."""

    async def main():
        with pipe() as (reader, writer):
            os.set_blocking(reader.fileno(), False)
            transport, protocol = await loop.connect_write_pipe(lambda: Events(**does), writer)
            value = act(transport, protocol, reader)
            if value is not None:
                await value
            return await protocol.story()

    return loop.run_until_complete(main())


async def drained(reader):
    """Read until the pipe is empty and ended; how much it was."""
    count = 0
    while True:
        try:
            piece = reader.read(1 << 20)
        except BlockingIOError:
            piece = None
        if piece == b"":
            return count
        count += len(piece or b"")
        await asyncio.sleep(0.001)


# --- reading


@case
def read_and_end(loop):
    return reading(loop, lambda t, p, w: w.write(b"x" * 1000) and None)


@case
def end_at_once(loop):
    return reading(loop, lambda t, p, w: None)


@case
def read_much(loop):
    async def act(transport, protocol, writer):
        os.set_blocking(writer.fileno(), False)
        sent = 0
        while sent < 500_000:
            with contextlib.suppress(TypeError):
                sent += writer.write(bytes(500_000 - sent))
            await asyncio.sleep(0)

    story = reading(loop, act)
    return [call for call in story if call != "data"]


@cases("made", "eof", "lost")
def read_callback_fails(loop, name):
    return reading(loop, lambda t, p, w: w.write(b"x") and None, **{name: fail})


@case
def data_received_fails_and_more_comes(loop):
    async def act(transport, protocol, writer):
        for i in range(3):
            writer.write(b"x")
            await until(lambda i=i: len(protocol.data) == i + 1)

    return reading(loop, act, data=fail)


@cases("made", "data", "eof")
def read_close_in_callback(loop, name):
    def close(protocol, *_):
        protocol.transport.close()
        protocol.transport.close()

    return reading(loop, lambda t, p, w: w.write(b"x") and None, **{name: close})


@case
def read_close_with_input_waiting(loop):
    def act(transport, protocol, writer):
        writer.write(b"x")
        transport.close()

    return reading(loop, act)


def is_reading(transport):
    """asyncio's read pipes know it since 3.11."""
    return transport.is_reading() if sys.version_info >= (3, 11) else None


@case
def read_paused(loop):
    async def act(transport, protocol, writer):
        told = [is_reading(transport)]
        transport.pause_reading()
        transport.pause_reading()
        told.append(is_reading(transport))
        writer.write(b"x")
        await turns(5)
        told.append(len(protocol.data))
        transport.resume_reading()
        transport.resume_reading()
        await until(lambda: protocol.data)
        protocol.calls += told

    return reading(loop, act)


def read_paused_from_the_start(loop):
    async def act(transport, protocol, writer):
        writer.write(b"x")
        await turns(5)
        protocol.calls.append(len(protocol.data))
        transport.resume_reading()

    return reading(loop, act, made=lambda protocol: protocol.transport.pause_reading())


if sys.version_info >= (3, 11):  # asyncio did not listen to that before.
    case(read_paused_from_the_start)


@case
def read_end_while_paused(loop):
    async def act(transport, protocol, writer):
        transport.pause_reading()
        writer.write(b"x")
        writer.close()
        await turns(5)
        protocol.calls.append("resumes")
        transport.resume_reading()

    return reading(loop, act)


@case
def read_other_protocol(loop):
    async def act(transport, protocol, writer):
        other = Events()
        writer.write(b"x")
        await until(lambda: protocol.data)
        transport.set_protocol(other)
        writer.write(b"y")
        writer.close()
        protocol.calls.append(str(await asyncio.wait_for(other.lost, 5)))
        protocol.calls += other.calls
        protocol.lost.set_result(None)

    return reading(loop, act)


@case
def read_max_size(loop):
    async def act(transport, protocol, writer):
        transport.max_size = 10
        writer.write(b"x" * 25)
        await until(lambda: len(protocol.data) == 25)
        protocol.calls += protocol.pieces

    return reading(loop, act)


@case
def read_buffered_protocol(loop):
    """asyncio's read pipes know no get_buffer()."""

    class Buffered(asyncio.BufferedProtocol):
        def get_buffer(self, sizehint):
            return bytearray(10)

        def buffer_updated(self, nbytes):
            raise AssertionError

        def connection_lost(self, exc):
            lost.set_result(exc)

    lost = loop.create_future()

    async def main():
        with pipe() as (reader, writer):
            await loop.connect_read_pipe(Buffered, reader)
            writer.write(b"x")
            await turns(1)
            while select.select([reader], [], [], 0)[0]:
                await asyncio.sleep(0.001)
            writer.close()
            return await asyncio.wait_for(lost, 5)

    return loop.run_until_complete(main())


@case
def read_only(loop):
    def act(transport, protocol, writer):
        protocol.calls += [
            hasattr(transport, name) for name in ("write", "abort", "write_eof", "get_extra_info")
        ]
        protocol.calls += [
            isinstance(transport, kind)
            for kind in (asyncio.ReadTransport, asyncio.WriteTransport, asyncio.Transport)
        ]
        protocol.calls += [transport.get_extra_info(name, 5) for name in ("socket", "sockname")]

    return reading(loop, act)


@case
def read_with_a_cancelled_waiter(loop):
    async def main():
        with pipe() as (reader, writer):
            waiter = loop.create_future()
            waiter.cancel()
            transport = loop._make_read_pipe_transport(reader, Events(), waiter, {"a": 1})
            writer.write(b"x")
            writer.close()
            story = await transport.get_protocol().story()
            return story, transport.get_extra_info("a")

    return loop.run_until_complete(main())


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
def read_dev_null(loop):
    """epoll refuses it, and asyncio goes on without."""
    errors = []
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))

    async def main():
        with open("/dev/null", "rb", 0) as file:
            transport, protocol = await loop.connect_read_pipe(Events, file)
            await turns()
            told = [*protocol.calls, is_reading(transport), os.get_blocking(file.fileno())]
            transport.pause_reading()
            try:
                transport.resume_reading()
            except OSError as error:
                errors.append(error)
            transport.close()
            return told + await protocol.story(), errors

    return loop.run_until_complete(main())


@case
def read_from_a_socket(loop):
    async def main():
        a, b = socket.socketpair()
        with a, b:
            _, protocol = await loop.connect_read_pipe(Events, a)
            b.send(b"x" * 10)
            await until(lambda: len(protocol.data) == 10)
            b.close()
            exc = await asyncio.wait_for(protocol.lost, 5)
            return protocol.calls, exc, a.fileno()

    return loop.run_until_complete(main())


@case
def read_from_a_socket_that_is_reset(loop):
    """No EIO: this is reported."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            a = socket.create_connection(server.getsockname())
            b, _ = server.accept()
        with a, b:
            _, protocol = await loop.connect_read_pipe(Events, a)
            b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, array.array("i", [1, 0]).tobytes())
            b.close()
            exc = await asyncio.wait_for(protocol.lost, 5)
            return protocol.calls, exc

    return loop.run_until_complete(main())


# --- writing


@case
def write_and_close(loop):
    async def act(transport, protocol, reader):
        transport.write(b"a")
        transport.write(bytearray(b"bb"))
        transport.write(memoryview(b"ccc"))
        transport.writelines([b"d", b"e"])
        transport.write(b"")
        protocol.calls.append(transport.get_write_buffer_size())
        transport.close()
        protocol.calls.append(await drained(reader))

    return writing(loop, act)


@case
def write_much_and_close(loop):
    async def act(transport, protocol, reader):
        transport.write(b"x" * 500_000)
        protocol.calls += [transport.get_write_buffer_size(), transport.is_closing()]
        transport.write_eof()
        transport.write_eof()
        transport.write(b"lost")
        protocol.calls += [transport.get_write_buffer_size(), transport.is_closing()]
        protocol.calls.append(await drained(reader))

    return writing(loop, act)


@case
def write_much_and_abort(loop):
    async def act(transport, protocol, reader):
        transport.write(b"x" * 500_000)
        transport.abort()
        protocol.calls += [transport.get_write_buffer_size(), await drained(reader)]

    return writing(loop, act)


@case
def write_and_abort(loop):
    """What was written before is on its way."""

    async def act(transport, protocol, reader):
        transport.write(b"x" * 5)
        transport.abort()
        protocol.calls.append(await drained(reader))

    return writing(loop, act)


@case
def close_and_abort_with_much_to_send(loop):
    async def act(transport, protocol, reader):
        transport.write(b"x" * 500_000)
        transport.close()
        await turns()
        transport.abort()
        protocol.calls.append(await drained(reader))

    return writing(loop, act)


@case
def reader_closes(loop):
    return writing(loop, lambda t, p, reader: reader.close())


@case
def reader_closes_with_much_to_read(loop):
    async def act(transport, protocol, reader):
        transport.write(b"x" * 500_000)
        await turns()
        reader.close()

    return writing(loop, act)


@case
def reader_closes_while_closing(loop):
    async def act(transport, protocol, reader):
        transport.write(b"x" * 500_000)
        transport.close()
        await turns()
        reader.close()

    return writing(loop, act)


@case
def reader_is_gone_before(loop):
    async def act(transport, protocol, reader):
        reader.close()
        transport.write(b"x")
        await turns()

    return writing(loop, act)


@cases("aborted", "closed by the reader")
def write_after_the_end(loop, how):
    async def main():
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_write_pipe(Events, writer)
            if how == "aborted":
                transport.abort()
            else:
                reader.close()
                await turns()
            with log_of() as messages:
                for _ in range(8):
                    transport.write(b"x")
            return messages, await protocol.story()

    return loop.run_until_complete(main())


@cases("text", 5, None, [b"x"])
def write_what_is_no_bytes(loop, data):
    async def main():
        with pipe() as (_, writer):
            transport, protocol = await loop.connect_write_pipe(Events, writer)
            try:
                transport.write(data)
            finally:
                transport.close()
                await protocol.story()

    return loop.run_until_complete(main())


@case
def write_with_gaps(loop):
    """asyncio takes it, os.write() does not: the end of the transport."""
    return writing(loop, lambda t, p, r: t.write(memoryview(b"abcdef")[::2]))


@cases("sent", "not sent")
def write_with_gaps_behind_others(loop, how):
    async def act(transport, protocol, reader):
        transport.write(b"x" * (1 if how == "sent" else 500_000))
        try:
            transport.write(memoryview(b"abcdef")[::2])
        except TypeError as error:
            protocol.calls.append(str(error))
        protocol.calls.append(transport.is_closing())
        transport.close()
        protocol.calls.append(await drained(reader))

    return writing(loop, act)


@cases(b"", bytearray(), memoryview(b""))
def write_nothing(loop, nothing):
    return writing(loop, lambda t, p, r: [t.write(nothing), t.writelines([nothing]), t.close()][2])


@case
def connection_lost_fails(loop):
    return writing(loop, lambda t, p, r: t.close(), lost=fail)


@cases("made", "pause", "resume")
def write_callback_fails(loop, name):
    async def act(transport, protocol, reader):
        transport.write(b"x" * 500_000)
        await turns()
        transport.close()
        protocol.calls.append(await drained(reader))

    return writing(loop, act, **{name: fail})


@cases("made", "pause")
def write_close_in_callback(loop, name):
    async def act(transport, protocol, reader):
        transport.write(b"x" * 500_000)
        await turns()
        protocol.calls.append(await drained(reader))

    return writing(loop, act, **{name: lambda protocol, *_: protocol.transport.close()})


@cases((None, None), (10, 5), (0, 0), (None, 1000), (100, None), (1, 2))
def write_limits(loop, limits):
    async def act(transport, protocol, reader):
        try:
            transport.set_write_buffer_limits(*limits)
        except ValueError as error:
            protocol.calls.append(str(error))
        protocol.calls.append(transport.get_write_buffer_limits())
        transport.write(b"x" * (PIPE_SIZE + 50))
        protocol.calls.append(transport.get_write_buffer_size())
        await turns()
        transport.close()
        protocol.calls.append(await drained(reader))

    return writing(loop, act)


@case
def write_only(loop):
    def act(transport, protocol, reader):
        for name in ("is_reading", "pause_reading", "resume_reading"):
            try:
                getattr(transport, name)()
            except NotImplementedError:
                protocol.calls.append(name)
        protocol.calls += [
            isinstance(transport, kind)
            for kind in (asyncio.ReadTransport, asyncio.WriteTransport, asyncio.Transport)
        ]
        protocol.calls += [transport.get_extra_info(name, 5) for name in ("socket", "sockname")]
        protocol.calls.append(transport.can_write_eof())
        transport.close()

    return writing(loop, act)


@cases("/dev/null", "/dev/full", "/dev/zero")
def write_to_device(loop, name):
    async def main():
        with open(name, "wb", 0) as file:
            transport, protocol = await loop.connect_write_pipe(Events, file)
            transport.write(b"x" * 1000)
            told = [transport.get_write_buffer_size(), transport.is_closing()]
            transport.close()
            return told + await protocol.story()

    return loop.run_until_complete(main())


@cases(socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
def write_to_a_socket(loop, kind):
    async def main():
        a, b = socket.socketpair(socket.AF_UNIX, kind)
        with a, b:
            transport, protocol = await loop.connect_write_pipe(Events, a)
            transport.write(b"one")
            transport.write(b"two")
            await turns()
            got = [b.recv(100)] if kind == socket.SOCK_STREAM else [b.recv(100), b.recv(100)]
            b.close()
            exc = await asyncio.wait_for(protocol.lost, 5)
            return got, protocol.calls, exc

    return loop.run_until_complete(main())


@case
def write_to_a_socket_whose_peer_sends(loop):
    """As a sign of life it is taken for the end."""

    async def main():
        a, b = socket.socketpair()
        with a, b:
            _, protocol = await loop.connect_write_pipe(Events, a)
            b.send(b"x")
            return str(await asyncio.wait_for(protocol.lost, 5)), protocol.calls

    return loop.run_until_complete(main())


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


# --- terminals


@cases("one file", "two files")
def terminal_both_ways(loop, how):
    async def main():
        with terminal() as (ours, theirs):
            other = theirs
            if how == "two files":
                other = open(os.dup(theirs.fileno()), "wb", 0)
            with other:
                _, reader = await loop.connect_read_pipe(Events, theirs)
                transport, writer = await loop.connect_write_pipe(Events, other)
                ours.write(b"in")
                await until(lambda: reader.data == b"in")
                transport.write(b"out")
                await turns()
                got = ours.read(10)
                reader.transport.close()
                transport.close()
                return got, await reader.story(), await writer.story()

    return loop.run_until_complete(main())


@cases("read", "write")
def terminal_hangs_up(loop, side):
    """EIO is the end, and nothing that is reported."""

    async def main():
        with terminal() as (ours, theirs):
            connect = getattr(loop, f"connect_{side}_pipe")
            transport, protocol = await connect(Events, ours)
            theirs.close()
            if side == "write":
                transport.write(b"x")
                await turns()
                transport.close()
            return await protocol.story()

    return loop.run_until_complete(main())


@case
def terminal_slave_hangs_up(loop):
    async def main():
        with terminal() as (ours, theirs):
            _, protocol = await loop.connect_read_pipe(Events, theirs)
            ours.write(b"last")
            await until(lambda: protocol.data)
            ours.close()
            return await protocol.story()

    return loop.run_until_complete(main())


@case
def terminal_that_nobody_reads(loop):
    async def main():
        with terminal() as (ours, theirs):
            os.set_blocking(ours.fileno(), False)
            transport, protocol = await loop.connect_write_pipe(Events, theirs)
            transport.write(b"x" * 100_000)
            await turns()
            told = [*protocol.calls, transport.get_write_buffer_size() > 0]
            count = 0
            while transport.get_write_buffer_size():
                with contextlib.suppress(TypeError):
                    count += len(ours.read(10_000))
                await asyncio.sleep(0)
            transport.close()
            await protocol.story()
            while piece := ours.read(10_000):
                count += len(piece)
            return told, protocol.calls, count

    return loop.run_until_complete(main())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, debug):
    stock, ours = on_both(case, debug=debug)
    if case.__name__.split("[")[0] in REFUSED:
        # asyncio leaves half a transport behind.
        stock.warnings = [w for w in stock.warnings if "unclosed transport" not in w]
    assert ours.lines() == stock.lines()


REFUSED = {"closed_socket", "closed_loop", "no_protocol"}

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
            if "close reader" in acts:
                ends.pop()  # Whether something was still to be sent is a matter of time.
            complete = sent is None or "eof" not in reader.calls or len(reader.data) == sent
            calls = (
                [c for c in reader.calls if c != "data"],
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


# --- what differs from asyncio on purpose, and what cannot be seen from outside


def test_many_writes_of_a_callback_are_one(loop):
    """As asyncio's each part of it arrives whole, though others write to the pipe as well."""

    async def main():
        with pipe() as (reader, writer):
            transport, _ = await loop.connect_write_pipe(Events, writer)
            fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK | os.O_DIRECT)
            for _ in range(2):
                transport.write(b"abc")
            transport.write(data=b"abc")
            with pytest.raises(TypeError, match="argument"):
                transport.write()
            await turns()
            # The kernel keeps what one system call wrote as a packet.
            assert reader.read(100) == b"abcabcabc"
            for size in (1000, 3000, 200, 10_000, 5):
                transport.write(bytes(size))
            await turns()
            packets = [len(reader.read(20_000)) for _ in range(5)]
            assert packets == [4000, 200, 4096, 4096, 1808]
            assert len(reader.read(20_000)) == 5
            transport.close()
            await turns()

    loop.run_until_complete(main())


def test_standard_output_keeps_its_order(run_python):
    """print() writes there, too."""
    done = run_python(
        [
            "-c",
            "import asyncio, os, ouroloop, sys\n"
            "async def main():\n"
            "    loop = asyncio.get_running_loop()\n"
            "    out, _ = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin,"
            " sys.stdout)\n"
            "    for i in range(3):\n"
            "        out.write(b'transport %d\\n' % i)\n"
            "        os.write(1, b'os %d\\n' % i)\n"
            "ouroloop.run(main())\n",
        ]
    )
    assert done.stdout.split("\n")[:-1] == [
        f"{who} {i}" for i in range(3) for who in ("transport", "os")
    ]


def test_add_reader_on_a_terminal_that_is_written_to(loop):
    """As on asyncio: somebody else may read what a transport writes to."""

    async def main():
        with terminal() as (ours, theirs):
            transport, protocol = await loop.connect_write_pipe(Events, theirs)
            heard = loop.create_future()
            loop.add_reader(theirs, lambda: heard.done() or heard.set_result(None))
            ours.write(b"x")
            await asyncio.wait_for(heard, 5)
            loop.remove_reader(theirs)
            transport.write(b"y")
            await turns()
            assert ours.read(1) == b"y"
            transport.close()
            await protocol.lost

    loop.run_until_complete(main())


@pytest.mark.parametrize("closes", [False, True], ids=["", "and closes"])
def test_write_in_resume_writing(loop, closes):
    """asyncio calls connection_lost() twice if it closes."""

    def more(protocol):
        protocol.transport.write(b"y" * 1000)
        if closes:
            protocol.transport.close()

    async def main():
        with pipe() as (reader, writer):
            os.set_blocking(reader.fileno(), False)
            transport, protocol = await loop.connect_write_pipe(lambda: Events(resume=more), writer)
            transport.write(b"x" * 500_000)
            task = loop.create_task(drained(reader))
            await until(lambda: "resume" in protocol.calls)
            transport.close()
            assert await task == 501_000
            await protocol.lost
            await turns()
            assert protocol.calls == ["made", "pause", "resume", "lost"]

    loop.run_until_complete(main())


def test_write_any_kind_of_items(loop):
    async def main():
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_write_pipe(Events, writer)
            items = array.array("i", [1, 2])
            transport.write(memoryview(items))
            items[0] = 3  # Too late.
            transport.close()
            await turns()
            assert reader.read(100) == array.array("i", [1, 2]).tobytes()
            await protocol.lost

    loop.run_until_complete(main())


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


@pytest.mark.parametrize("side", ["read", "write"])
def test_a_pipe_closed_by_the_user(loop, side, reports):
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

    loop.run_until_complete(main())
    reports.take()


def test_collection_in_every_callback(loop):
    def collect(*_):
        gc.collect()

    async def main():
        for _ in range(3):
            with pipe() as (r, w):
                does = dict.fromkeys(("made", "data", "eof", "lost", "pause", "resume"), collect)
                await loop.connect_read_pipe(lambda: Events(**does), r)  # noqa: B023
                writing, writer = await loop.connect_write_pipe(lambda: Events(**does), w)  # noqa: B023
                writing.write(bytes(3 * PIPE_SIZE))
                writing.close()
                await writer.lost

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


def test_no_descriptor_left_for_a_duplicate(loop):
    """A terminal takes one more descriptor: without any the file stays the user's."""

    async def main():
        with terminal() as (ours, _):
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            try:
                with pytest.raises(OSError, match="Too many open files"):
                    await loop.connect_read_pipe(Events, ours)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert not ours.closed
            transport, protocol = await loop.connect_read_pipe(Events, ours)
            transport.close()
            await protocol.lost

    loop.run_until_complete(main())


def test_descriptors_are_given_back(loop):
    async def main():
        for _ in range(20):
            with terminal() as (ours, theirs):
                for connect in (loop.connect_read_pipe, loop.connect_write_pipe):
                    transport, protocol = await connect(Events, theirs if not ours else ours)
                    transport.close()
                    await protocol.lost
                    break
            with pipe() as (r, w):
                _, reader = await loop.connect_read_pipe(Events, r)
                transport, _ = await loop.connect_write_pipe(Events, w)
                transport.close()
                await reader.lost

    loop.run_until_complete(main())
    before = len(os.listdir("/proc/self/fd"))
    loop.run_until_complete(main())
    assert len(os.listdir("/proc/self/fd")) == before
