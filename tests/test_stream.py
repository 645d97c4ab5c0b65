"""csrc/stream.c: what a stream transport reads, and the events that it is told of."""

import asyncio
import random
import re
import resource
import socket
import struct
import sys
import time

import pytest
from network import Recorder, connected, read_all, tcp_pair, turns, until


def test_data(loop):
    async def main():
        async with connected() as (transport, peer):
            protocol = transport.get_protocol()
            peer.send(b"one")
            await until(lambda: protocol.data == b"one")
            peer.send(b"two")
            await until(lambda: protocol.data == b"onetwo")
            assert protocol.calls == ["made", "data", "data"]

    loop.run_until_complete(main())


@pytest.mark.parametrize("order", ["growing", "shrinking", "random"])
def test_messages_of_all_sizes(loop, order):
    """Through the shared buffer and through objects of their own."""
    sizes = [1, 10, 100, 4095, 4096, 4097, 10_000, 16_384, 60_000, 100_000, 262_144, 400_000]
    sizes = {
        "growing": sizes,
        "shrinking": sizes[::-1],
        "random": random.Random(0).choices(sizes, k=60),
    }[order]
    generator = random.Random(1)

    async def main():
        async with tcp_pair() as (client, server):
            protocol = server.get_protocol()
            for size in sizes:
                message = generator.randbytes(size)
                for _ in range(3):
                    protocol.data = b""
                    client.write(message)
                    await until(lambda: len(protocol.data) >= size)  # noqa: B023
                    assert protocol.data == message

    loop.run_until_complete(main())


def test_no_read_is_larger_than_max_size(loop):
    sizes = []

    class Protocol(Recorder):
        def data_received(self, data):
            super().data_received(data)
            assert type(data) is bytes
            sizes.append(len(data))

    async def main():
        async with tcp_pair(peer_factory=Protocol) as (client, server):
            assert server.max_size == 262_144
            client.write(b"x" * 3_000_000)
            await until(lambda: sum(sizes) == 3_000_000)
            assert max(sizes) <= 262_144
            for limit in (1000, 5000, 50_000):
                sizes.clear()
                server.max_size = limit
                client.write(b"x" * 300_000)
                await until(lambda: sum(sizes) == 300_000)
                assert max(sizes) <= limit

    loop.run_until_complete(main())


def test_replaced_methods_are_called(loop):
    """Protocols change what they do by replacing their own methods."""

    async def main():
        async with connected() as (transport, peer):
            protocol = transport.get_protocol()
            seen = []
            peer.send(b"x")
            await until(lambda: protocol.data)
            protocol.data_received = seen.append
            peer.send(b"y")
            await until(lambda: seen == [b"y"])

    loop.run_until_complete(main())


# --- buffered protocols


class Buffered(Recorder, asyncio.BufferedProtocol):
    def __init__(self, size=16):
        super().__init__()
        self.buffer = bytearray(size)
        self.hints = []

    def get_buffer(self, sizehint):
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, count):
        self.data += self.buffer[:count]
        self.calls.append("updated")


def test_a_buffered_protocol(loop):
    async def main():
        async with connected(Buffered) as (transport, peer):
            protocol = transport.get_protocol()
            peer.send(b"x" * 100)
            await until(lambda: len(protocol.data) == 100)
            assert protocol.calls == ["made"] + ["updated"] * 7
            assert set(protocol.hints) == {-1}
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert protocol.calls[-2:] == ["eof", "lost"]

    loop.run_until_complete(main())


def test_the_buffer_may_change(loop):
    class Changing(Buffered):
        def buffer_updated(self, count):
            super().buffer_updated(count)
            # Impossible while somebody holds on to its memory.
            self.buffer.extend(b"more")

    async def main():
        async with connected(Changing) as (transport, peer):
            protocol = transport.get_protocol()
            peer.send(b"x" * 1000)
            await until(lambda: len(protocol.data) == 1000)

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    ("buffer", "error", "text"),
    [
        (b"", RuntimeError, "protocol.get_buffer() call failed."),
        (None, TypeError, "protocol.get_buffer() call failed."),
        (b"read only", TypeError, "read error"),
        (ZeroDivisionError(), ZeroDivisionError, "protocol.get_buffer() call failed."),
    ],
)
def test_buffers_that_cannot_be_used(loop, reports, buffer, error, text):
    class Odd(Buffered):
        def get_buffer(self, sizehint):
            if isinstance(buffer, Exception):
                raise buffer
            return buffer

    async def main():
        async with connected(Odd) as (transport, peer):
            protocol = transport.get_protocol()
            peer.send(b"x")
            lost = await protocol.lost
            assert isinstance(lost, (error, BufferError))
            (report,) = reports.take()
            assert text in report["message"]
            assert report["exception"] is lost

    loop.run_until_complete(main())


def test_protocols_of_both_kinds_may_follow_each_other(loop):
    async def main():
        async with connected() as (transport, peer):
            plain, buffered = transport.get_protocol(), Buffered()
            for protocol in (buffered, plain, buffered):
                transport.set_protocol(protocol)
                before = len(protocol.data)
                peer.send(b"x")
                await until(lambda: len(protocol.data) == before + 1)  # noqa: B023
            transport.set_protocol(plain)

    loop.run_until_complete(main())


def test_the_protocol_is_replaced_in_its_own_callback(loop):
    class First(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(second)

    async def main():
        nonlocal second
        second = Buffered()
        async with connected(First) as (transport, peer):
            peer.send(b"x")
            await until(lambda: transport.get_protocol() is second)
            peer.send(b"y")
            await until(lambda: second.data == b"y")

    second = None
    loop.run_until_complete(main())


# --- the end of input


@pytest.mark.parametrize("keep_open", [None, False, 0, True, "yes"])
def test_eof(loop, keep_open):
    async def main():
        async with connected() as (transport, peer):
            protocol = transport.get_protocol()
            protocol.keep_open = keep_open
            peer.send(b"x")
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in protocol.calls)
            if keep_open:
                await turns(10)
                assert protocol.calls == ["made", "data", "eof"]
                assert not transport.is_closing()
                transport.write(b"still")
                assert await read_all(peer, 5) == b"still"
                transport.close()
            assert await protocol.lost is None
            assert protocol.calls == ["made", "data", "eof", "lost"]

    loop.run_until_complete(main())


def test_half_closed_connections_cost_no_time(loop):
    """The kernel reports the end of input for ever."""

    async def main():
        async with connected() as (transport, peer):
            transport.get_protocol().keep_open = True
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in transport.get_protocol().calls)
            await asyncio.sleep(0.01)
            before = loop.turns = 0

            def count():
                loop.turns += 1

            loop._check = loop.call_later(0.05, count)
            start = time.thread_time()
            await asyncio.sleep(0.2)
            assert time.thread_time() - start < 0.1
            assert loop.turns > before

    loop.run_until_complete(main())


def test_an_error_in_eof_received(loop, reports):
    class Protocol(Recorder):
        def eof_received(self):
            raise ZeroDivisionError

    async def main():
        async with connected(Protocol) as (transport, peer):
            protocol = transport.get_protocol()
            peer.shutdown(socket.SHUT_WR)
            assert isinstance(await protocol.lost, ZeroDivisionError)
            (report,) = reports.take()
            assert report["message"] == "Fatal error: protocol.eof_received() call failed."

    loop.run_until_complete(main())


def test_a_reset_connection(loop):
    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        with listener:
            transport, protocol = await loop.create_connection(Recorder, *listener.getsockname())
            peer, _ = listener.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            assert isinstance(await protocol.lost, ConnectionResetError)
            assert protocol.calls == ["made", "lost"]
            assert transport.is_closing()

    loop.run_until_complete(main())


def test_a_reset_while_paused_is_seen_when_resumed(loop):
    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        with listener:
            transport, protocol = await loop.create_connection(Recorder, *listener.getsockname())
            await turns()
            transport.pause_reading()
            peer, _ = listener.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            await turns(10)
            assert protocol.calls == ["made"]
            transport.resume_reading()
            assert isinstance(await protocol.lost, ConnectionResetError)

    loop.run_until_complete(main())


# --- errors of the protocol


@pytest.mark.parametrize("factory", [Recorder, Buffered])
def test_an_error_ends_the_connection(loop, reports, factory):
    class Protocol(factory):
        def data_received(self, data):
            raise ZeroDivisionError

        def buffer_updated(self, count):
            raise ZeroDivisionError

    async def main():
        async with connected(Protocol) as (transport, peer):
            protocol = transport.get_protocol()
            peer.send(b"x")
            error = await protocol.lost
            assert isinstance(error, ZeroDivisionError)
            (report,) = reports.take()
            name = "buffer_updated" if factory is Buffered else "data_received"
            assert report["message"] == f"Fatal error: protocol.{name}() call failed."
            assert report["exception"] is error
            assert report["transport"] is transport
            assert report["protocol"] is protocol

    loop.run_until_complete(main())


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_exits_leave_the_loop(loop, exception, debug):
    loop.set_debug(debug)

    class Protocol(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if data == b"leave":
                raise exception

    async def main():
        async with connected(Protocol) as (transport, peer):
            peer.send(b"leave")
            await resumed
            peer.send(b"x")
            await until(lambda: transport.get_protocol().data == b"leavex")

    resumed = loop.create_future()
    task = loop.create_task(main())
    with pytest.raises(exception):
        loop.run_until_complete(task)
    resumed.set_result(None)
    loop.run_until_complete(task)


def test_a_protocol_without_the_method(loop, reports):
    async def main():
        async with connected() as (transport, peer):
            protocol = transport.get_protocol()
            transport.set_protocol(type("Other", (), {"connection_lost": print})())
            peer.send(b"x")
            await until(lambda: transport._loop is None)
            (report, unprintable) = reports.take()
            assert isinstance(report["exception"], AttributeError)
            assert isinstance(unprintable["exception"], TypeError) or unprintable
            assert protocol.calls == ["made"]

    if sys.version_info:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("builtins.print", lambda *args: 1 / 0)
            loop.run_until_complete(main())


# --- what the callbacks do to the transport


@pytest.mark.parametrize("action", ["close", "abort", "pause_reading", "_force_close"])
def test_what_data_received_may_do(loop, action):
    class Protocol(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if action == "_force_close":
                self.transport._force_close(None)
            else:
                getattr(self.transport, action)()

    async def main():
        async with connected(Protocol) as (transport, peer):
            protocol = transport.get_protocol()
            peer.send(b"one")
            await until(lambda: protocol.data == b"one")
            if action == "pause_reading":
                peer.send(b"two")
                await turns(10)
                assert protocol.data == b"one"
                transport.resume_reading()
                await until(lambda: protocol.data == b"onetwo")
            else:
                assert await protocol.lost is None
                assert protocol.calls == ["made", "data", "lost"]

    loop.run_until_complete(main())


def test_one_connection_may_end_another_of_the_same_poll(loop):
    transports = []

    class Protocol(Recorder):
        def data_received(self, data):
            super().data_received(data)
            for transport in transports:
                transport.abort()

    async def main():
        async with connected(Protocol) as one, connected(Protocol) as two:
            transports.extend((one[0], two[0]))
            protocols = [transport.get_protocol() for transport in transports]
            one[1].send(b"x")
            two[1].send(b"x")
            for protocol in protocols:
                assert await protocol.lost is None
            assert sum(protocol.calls.count("data") for protocol in protocols) == 1

    loop.run_until_complete(main())


def test_stop_in_data_received(loop):
    class Protocol(Recorder):
        def data_received(self, data):
            super().data_received(data)
            loop.stop()

    async def make():
        a, b = socket.socketpair()
        transport, protocol = await loop.create_connection(Protocol, sock=a)
        return transport, protocol, b

    transport, protocol, peer = loop.run_until_complete(make())
    with peer:
        loop.call_later(0.01, peer.send, b"x")
        loop.run_forever()
        assert protocol.data == b"x"
        transport.close()
        loop.run_until_complete(protocol.lost)


def test_closing_the_loop_in_a_callback_is_refused(loop, reports):
    class Protocol(Recorder):
        def data_received(self, data):
            super().data_received(data)
            loop.close()

    async def main():
        async with connected(Protocol) as (transport, peer):
            protocol = transport.get_protocol()
            peer.send(b"x")
            error = await protocol.lost
            assert str(error) == "Cannot close a running event loop"
            assert len(reports.take()) == 1

    loop.run_until_complete(main())


# --- debug mode


def test_debug_mode_works_the_same(loop):
    loop.set_debug(True)

    async def main():
        async with tcp_pair(peer_factory=lambda: Buffered(65536)) as (client, server):
            protocols = client.get_protocol(), server.get_protocol()
            client.write(b"x" * 10_000_000)
            await until(lambda: len(protocols[1].data) == 10_000_000)
            assert protocols[0].calls == ["made", "pause", "resume"]
            client.write_eof()
            await asyncio.gather(*(protocol.lost for protocol in protocols))

    loop.run_until_complete(main())


def test_slow_callbacks_are_named(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.02

    class Protocol(Recorder):
        def data_received(self, data):
            super().data_received(data)
            time.sleep(0.03)

    async def main():
        async with connected(Protocol) as (transport, peer):
            peer.send(b"x")
            await until(lambda: transport.get_protocol().data)

    loop.run_until_complete(main())
    assert any(re.search(r"_read_ready.* took \d+\.\d{3} sec", text) for text in caplog.messages)


def test_more_than_a_read_takes_is_read_on_at_once_but_no_callback_waits_for_it(loop):
    class Pausing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            loop.call_soon(self.transport.pause_reading)

    async def main():
        async with connected() as (transport, peer):
            transport.max_size = 10
            peer.send(b"x" * 40)
            await until(lambda: len(transport.get_protocol().data) == 40)
            assert transport.get_protocol().calls[1:] == ["data"] * 4
        async with connected(Pausing) as (transport, peer):
            transport.max_size = 10
            peer.send(b"x" * 40)
            for size in 10, 20, 30, 40:
                await until(lambda: not transport.is_reading())
                await turns()
                assert len(transport.get_protocol().data) == size
                transport.resume_reading()

    loop.run_until_complete(main())


def test_a_flood_does_not_hold_up_others(loop):
    order = []

    class Noting(Recorder):
        def data_received(self, data):
            order.append(self)

    async def main():
        async with connected(Noting) as (one, one_peer), connected(Noting) as (other, other_peer):
            one.max_size = other.max_size = 10
            one_peer.send(b"x" * 1000)
            other_peer.send(b"x" * 1000)
            await until(lambda: len(order) == 200)
            both = [one.get_protocol(), other.get_protocol()]
        # Two polls may name them in different orders.
        for start in range(200 - 17):
            assert set(order[start : start + 17]) == set(both) or len(set(order[start:])) == 1

    loop.run_until_complete(main())


def test_what_data_received_may_do_between_two_reads(loop):
    class Ending(Recorder):
        def data_received(self, data):
            super().data_received(data)
            getattr(self.transport, self.how)()

    async def main():
        for how in "close", "abort", "pause_reading":
            async with connected(Ending) as (transport, peer):
                transport.max_size = 10
                protocol = transport.get_protocol()
                protocol.how = how
                peer.send(b"x" * 40)
                await until(lambda: protocol.data)  # noqa: B023
                await turns()
                assert protocol.data == b"x" * 10

    loop.run_until_complete(main())


@pytest.mark.parametrize("count", [500, 600, 1100])
def test_input_on_many_connections_at_once(loop, count):
    """More than libuv takes from the kernel in one call, and all found by one poll."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * count + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(needed, hard)), hard))
    seen = []

    class Noting(asyncio.Protocol):
        def data_received(self, data):
            seen.append(data)
            loop.call_soon(seen.append, b"later")

    async def main():
        pairs = [socket.socketpair() for _ in range(min(count, (hard - 100) // 2))]
        transports = []
        for ours, _ in pairs:
            transport, _ = await loop.create_connection(Noting, sock=ours)
            transports.append(transport)
        await asyncio.sleep(0)
        for number, (_, peer) in enumerate(pairs):
            peer.send(b"%d" % number)
        await until(lambda: len(seen) == 2 * len(pairs))
        assert sorted(seen) == sorted(
            [b"%d" % n for n in range(len(pairs))] + [b"later"] * len(pairs)
        )
        for transport, (_, peer) in zip(transports, pairs, strict=True):
            transport.close()
            peer.close()
        await turns()

    try:
        loop.run_until_complete(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
