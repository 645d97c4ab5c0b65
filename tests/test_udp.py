"""csrc/udp.c: datagrams arrive one after the other, each in its turn, as on stock asyncio.

Addresses are in test_udp_address.py, what is sent in test_udp_write.py, failures in
test_udp_errors.py.
"""

import asyncio
import contextvars
import gc
import socket
import sys

import ouroloop
import pytest
from network import until
from outcome import AwaitedCases, on_both
from udp_peers import Peer, endpoint, plain

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = AwaitedCases()
case = CASES.awaited

NOTE = contextvars.ContextVar("NOTE", default="unset")


@case()
async def datagrams_in_order(loop):
    async with endpoint() as (receiver, protocol):
        with plain() as sock:
            for n in range(50):
                sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
            await until(lambda: len(protocol.log) == 51)
    return protocol.log


@case()
async def sizes(loop):
    async with endpoint() as (receiver, protocol):
        with plain() as sock:
            for size in (0, 1, 512, 65000, 0, 65507, 3):
                sock.sendto(b"x" * size, receiver.get_extra_info("sockname"))
            await until(lambda: len(protocol.log) == 8)
    return [len(entry[1]) for entry in protocol.log[1:]]


@case()
async def each_has_a_turn_of_its_own(loop):
    # Whoever waits for one datagram has run before the next is handed on.
    class OneByOne(Peer):
        def datagram_received(self, data, addr):
            self.waiter.set_result(data)

    async with endpoint(OneByOne) as (receiver, protocol):
        protocol.waiter = loop.create_future()
        got = []
        with plain() as sock:
            for n in range(40):
                sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
        while len(got) < 40:
            got.append(await protocol.waiter)
            protocol.waiter = loop.create_future()
    return got


@case()
async def other_callbacks_run_between_two(loop):
    async with endpoint() as (receiver, _):
        with plain() as sock:
            for n in range(30):
                sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))

        class Interleaved(Peer):
            def datagram_received(self, data, addr):
                self.log.append(data)
                loop.call_soon(self.log.append, b"after " + data)

        log = []
        receiver.set_protocol(Interleaved(log))
        await until(lambda: len(log) == 60)
    return log


@case("close", "abort", "pause_reading", "raise", "swap")
async def in_the_middle(loop, action):
    if action == "pause_reading" and sys.version_info < (3, 12):
        return "asyncio's cannot be paused"
    async with endpoint() as (receiver, _):
        other = Peer()

        class Ends(Peer):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                if data != b"10":
                    return
                if action == "raise":
                    raise ZeroDivisionError("in datagram_received")
                if action == "swap":
                    receiver.set_protocol(other)
                else:
                    getattr(receiver, action)()

        first = Ends()
        receiver.set_protocol(first)
        with plain() as sock:
            for n in range(25):
                sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
        if action in ("close", "abort"):
            await first.lost
        elif action == "pause_reading":
            await until(lambda: len(first.log) == 11)
            await asyncio.sleep(0.01)
            first.log.append("paused")
            receiver.resume_reading()
            await until(lambda: len(first.log) == 26)
        else:
            await until(lambda: len(first.log) + len(other.log) == 25)
        return first.log, other.log


@CASES.one
def input_waits_behind_callbacks(loop):
    log = []

    class Notes(Peer):
        def datagram_received(self, data, addr):
            log.append(data)

    async def make():
        return await loop.create_datagram_endpoint(Notes, local_addr=("127.0.0.1", 0))

    transport, protocol = loop.run_until_complete(make())
    loop.run_until_complete(asyncio.sleep(0.001))
    with plain() as sock:
        for n in range(20):
            sock.sendto(b"%d" % n, transport.get_extra_info("sockname"))
            loop.call_soon(log.append, "before")
            loop.call_soon(lambda: loop.call_soon(log.append, "after"))
            loop.stop()
            loop.run_forever()
            loop.run_until_complete(asyncio.sleep(0.001))
    transport.close()
    loop.run_until_complete(protocol.lost)
    return log


@case()
async def a_socket_made_blocking_again(loop):
    # What is there is received; a read never waits for more.
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        async with endpoint(sock=sock) as (_, protocol):
            sock.setblocking(True)
            with plain() as peer:
                for n in range(20):
                    peer.sendto(b"%d" % n, sock.getsockname())
                await until(lambda: len(protocol.log) == 21)
    return protocol.log


@CASES.one
def contexts(loop):
    log = []

    class Notes(Peer):
        def note(self, name):
            log.append((name, NOTE.get()))

        def connection_made(self, transport):
            self.note("made")

        def datagram_received(self, data, addr):
            self.note("datagram")
            NOTE.set("kept")

        def connection_lost(self, exc):
            self.note("lost")
            super().connection_lost(exc)

    async def main():
        NOTE.set("creator")
        transport, protocol = await loop.create_datagram_endpoint(
            Notes, local_addr=("127.0.0.1", 0)
        )
        NOTE.set("later")
        with plain() as sock:
            for n in range(3):
                sock.sendto(b"x", transport.get_extra_info("sockname"))
                await until(lambda n=n: len(log) == n + 2)
        NOTE.set("closer")
        transport.close()
        await protocol.lost
        return log

    return loop.run_until_complete(main())


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, debug):
    stock, ours = on_both(case, debug=debug)
    assert ours.lines() == stock.lines()


def test_paused_with_datagrams_taken_already(loop):
    async def main():
        class Pauses(Peer):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                self.transport.pause_reading()
                loop.call_soon(self.transport.resume_reading)

        async with endpoint(Pauses) as (receiver, protocol):
            with plain() as sock:
                for n in range(64):
                    sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
            await until(lambda: len(protocol.log) == 65)
            assert protocol.log[1:] == [("datagram", b"%d" % n) for n in range(64)]
            receiver.pause_reading()
            assert not receiver.is_reading()

    loop.run_until_complete(main())


def test_datagrams_survive_a_stopped_loop(loop):
    async def make():
        return await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))

    receiver, protocol = loop.run_until_complete(make())
    with plain() as sock:
        for n in range(64):
            sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
    for _ in range(200):
        loop.stop()
        loop.run_forever()
    assert protocol.log[1:] == [("datagram", b"%d" % n) for n in range(64)]
    receiver.close()
    loop.run_until_complete(protocol.lost)


def test_a_loop_that_closes_drops_what_it_has_taken():
    loop = ouroloop.new_event_loop()

    async def make():
        return await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))

    receiver, protocol = loop.run_until_complete(make())
    with plain() as sock:
        for n in range(40):
            sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
    while len(protocol.log) < 8:
        loop.stop()
        loop.run_forever()
    with pytest.warns(ResourceWarning, match="unclosed transport <DatagramTransport fd="):
        loop.close()
    assert len(protocol.log) < 40
    with pytest.raises(AttributeError):
        receiver.sendto(b"x", ("127.0.0.1", 9))


def test_garbage_is_collected_in_the_middle(loop):
    async def main():
        class Collects(Peer):
            def datagram_received(self, data, addr):
                gc.collect()
                self.transport.sendto(data, addr)
                if data == b"19":
                    self.transport.close()
                    del self.transport

        transport, protocol = await loop.create_datagram_endpoint(
            Collects, local_addr=("127.0.0.1", 0)
        )
        address = transport.get_extra_info("sockname")
        del transport
        with plain() as sock:
            for n in range(30):
                sock.sendto(b"%d" % n, address)
            await protocol.lost
            assert [sock.recv(10) for _ in range(20)] == [b"%d" % n for n in range(20)]

    loop.run_until_complete(main())
