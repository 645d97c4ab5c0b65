"""Datagrams that are refused or too long, and callbacks of the protocol that raise."""

import asyncio
import sys

import pytest
from network import turns, until
from outcome import AwaitedCases, on_both
from udp_peers import Peer, clogged, endpoint, nobody, plain

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = AwaitedCases()
case = CASES.awaited


# --- errors of the network


@case()
async def refused(loop):
    async with endpoint(remote_addr=nobody()) as (transport, protocol):
        transport.sendto(b"one")
        await until(lambda: len(protocol.log) == 2)
        transport.sendto(b"two")
        await until(lambda: len(protocol.log) == 3)
        return protocol.log, transport.is_closing()


@case()
async def too_long(loop):
    with plain() as sock:
        async with endpoint(remote_addr=sock.getsockname()) as (transport, protocol):
            transport.sendto(b"x" * 70_000)
            transport.sendto(b"y")
            return protocol.log, sock.recv(10), transport.is_closing()


# --- callbacks that raise


@case(ZeroDivisionError, SystemExit, KeyboardInterrupt)
async def error_received_raises_in_sendto(loop, error):
    class Raises(Peer):
        def error_received(self, exc):
            raise error("in error_received")

    async with endpoint(Raises) as (transport, _):
        transport.sendto(b"x" * 70_000, ("127.0.0.1", 9))


@CASES.each(ZeroDivisionError, SystemExit, KeyboardInterrupt)
def error_received_raises_in_the_loop(loop, error):
    log = []

    class Raises(Peer):
        def error_received(self, exc):
            log.append(type(exc).__name__)
            raise error("in error_received")

    async def main():
        transport, _ = await loop.create_datagram_endpoint(Raises, remote_addr=nobody())
        transport.sendto(b"x")
        try:
            await asyncio.sleep(0.02)
            return log, transport.is_closing()
        finally:
            transport.abort()

    task = loop.create_task(main())
    try:
        return loop.run_until_complete(task)
    except (SystemExit, KeyboardInterrupt) as exc:
        result = repr(exc), loop.run_until_complete(task)
        loop.run_until_complete(asyncio.sleep(0))
        return result


@CASES.each(SystemExit, KeyboardInterrupt)
def datagram_received_leaves_the_loop(loop, error):
    class Raises(Peer):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"1":
                raise error("in datagram_received")

    async def make():
        return await loop.create_datagram_endpoint(Raises, local_addr=("127.0.0.1", 0))

    transport, protocol = loop.run_until_complete(make())
    with plain() as sock:
        for n in range(5):
            sock.sendto(b"%d" % n, transport.get_extra_info("sockname"))
    try:
        loop.run_until_complete(turns(10))
    except (SystemExit, KeyboardInterrupt) as exc:
        protocol.log.append(repr(exc))
    loop.run_until_complete(turns(10))
    transport.close()
    loop.run_until_complete(protocol.lost)
    return protocol.log


@case("connection_made", "connection_lost")
async def callback_raises(loop, name):
    def fail(self, *args):
        raise ZeroDivisionError(f"in {name}")

    factory = type("Raises", (Peer,), {name: fail})
    transport, protocol = await loop.create_datagram_endpoint(factory, local_addr=("127.0.0.1", 0))
    with plain() as sock:
        sock.sendto(b"x", transport.get_extra_info("sockname"))
        await asyncio.sleep(0.01)
    transport.close()
    await asyncio.sleep(0.01)
    return protocol.log, transport.is_closing(), transport.get_extra_info("socket").fileno()


@case()
async def pause_writing_raises(loop):
    class Raises(Peer):
        def pause_writing(self):
            raise ZeroDivisionError("in pause_writing")

    async with clogged(Raises) as (transport, protocol, _):
        transport.set_write_buffer_limits(high=0)
        return protocol.log, transport.is_closing()


@case()
async def a_protocol_without_methods(loop):
    class Bare:
        def connection_made(self, transport):
            pass

    transport, _ = await loop.create_datagram_endpoint(Bare, local_addr=("127.0.0.1", 0))
    with plain() as sock:
        sock.sendto(b"x", transport.get_extra_info("sockname"))
        await asyncio.sleep(0.01)
    transport.abort()
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, debug):
    stock, ours = on_both(case, debug=debug)
    assert ours.lines() == stock.lines()


# --- what the cases cannot see


def test_an_error_is_being_handled_while_the_protocol_is_told(loop):
    """So that logging.exception() shows it."""
    seen = []

    class Protocol(asyncio.DatagramProtocol):
        def error_received(self, exc):
            seen.append((exc, sys.exc_info()[1]))

    async def main():
        transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
        transport.sendto(b"x" * 70_000, ("127.0.0.1", 9))
        transport.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    ((error, handled),) = seen
    assert isinstance(error, OSError)
    assert handled is error


def test_an_audit_hook_may_refuse(run_python):
    run_python(
        [
            "-c",
            """if True:
    import asyncio, sys, ouroloop
    events = []
    def hook(event, args):
        if event == "socket.sendto":
            events.append(args[1])
            if args[1][1] == 10:
                raise ZeroDivisionError("no")
    class Peer(asyncio.DatagramProtocol):
        def connection_lost(self, exc):
            events.append(repr(exc))
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: events.append(context["message"]))
        transport, _ = await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))
        transport.sendto(b"x", ("127.0.0.1", 9))
        transport.sendto(b"x", ("127.0.0.1", 10))
        await asyncio.sleep(0)
    sys.addaudithook(hook)
    loop = ouroloop.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    assert events == [
        ("127.0.0.1", 9), ("127.0.0.1", 10), "Fatal write error on datagram transport",
        "ZeroDivisionError('no')",
    ], events
    """,
        ]
    )
