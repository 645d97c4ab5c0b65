"""What a pipe's reading end hears, and when, is the same as on stock asyncio."""

import array
import asyncio
import contextlib
import os
import select
import socket
import sys

import pytest
from network import turns, until
from outcome import Cases, on_both
from pipe_ends import Events, fail, pipe

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each


def reading(loop, act, **does):
    """Connect the reading end, `act` on (transport, protocol, writer), close the writing end."""

    async def main():
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_read_pipe(lambda: Events(**does), reader)
            value = act(transport, protocol, writer)
            if value is not None:
                await value
            writer.close()
            return await protocol.story()

    return loop.run_until_complete(main())


# --- input and its end


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


# --- callbacks that fail or close


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


# --- pausing


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


# --- what it is, and what it may read


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


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, debug):
    stock, ours = on_both(case, debug=debug)
    assert ours.lines() == stock.lines()
