"""What is written to a pipe, and what becomes of it when an end closes, as on stock asyncio."""

import array
import asyncio
import contextlib
import fcntl
import logging
import os
import socket

import pytest
from network import turns, until
from outcome import Cases, on_both
from pipe_ends import PIPE_SIZE, Events, fail, pipe

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each


@contextlib.contextmanager
def logged():
    """The messages that asyncio logs meanwhile."""
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    log = logging.getLogger("asyncio")
    log.addHandler(handler)
    try:
        yield messages
    finally:
        log.removeHandler(handler)


def writing(loop, act, **does):
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


# --- output and the end of it


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
            with logged() as messages:
                for _ in range(8):
                    transport.write(b"x")
            return messages, await protocol.story()

    return loop.run_until_complete(main())


# --- what may be written


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


# --- callbacks and flow control


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


# --- what it is, and where it may write


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


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, debug):
    stock, ours = on_both(case, debug=debug)
    assert ours.lines() == stock.lines()


# --- what differs from asyncio on purpose, and what the cases cannot see


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
