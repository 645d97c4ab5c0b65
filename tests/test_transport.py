"""csrc/transport.c: what every transport shares, from connection_made() to connection_lost()."""

import asyncio
import contextvars
import gc
import logging
import math
import os
import socket
import sys
import weakref

import pytest
from network import Recorder, connected, read_all, tcp_pair, turns, until

# --- opening


def test_order_of_opening(loop):
    """connection_made(), then whoever waits for the transport, and only then data."""
    order = []

    class Protocol(Recorder):
        def connection_made(self, transport):
            order.append("made")
            super().connection_made(transport)

        def data_received(self, data):
            order.append("data")

    async def main():
        a, b = socket.socketpair()
        with b:
            b.send(b"there from the start")
            transport, protocol = await loop.create_connection(Protocol, sock=a)
            order.append("returned")
            await until(lambda: order[-1] == "data")
            transport.close()
            await protocol.lost

    for _ in range(200):
        loop.run_until_complete(main())
    assert order == ["made", "returned", "data"] * 200


def test_the_servers_callback_comes_before_data(loop):
    """A task that connection_made() starts has run when the first data arrives."""
    order = []

    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.task = loop.create_task(self.started())

        async def started(self):
            order.append("task")

        def data_received(self, data):
            order.append("data")
            self.transport.close()

    async def main():
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        for _ in range(50):
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.send(b"at once")
                assert await read_all_blocking(client) == b""
        server.close()
        await server.wait_closed()

    async def read_all_blocking(client):
        client.setblocking(False)
        return await read_all(client)

    loop.run_until_complete(main())
    assert order == ["task", "data"] * 50


def test_an_error_in_connection_made_is_reported_only(loop, reports):
    """As on asyncio the connection goes on."""

    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError

    async def main():
        async with connected(Protocol) as (transport, peer):
            (report,) = reports.take()
            assert isinstance(report["exception"], ZeroDivisionError)
            assert report["message"].startswith("Exception in callback ")
            peer.send(b"x")
            await until(lambda: transport.get_protocol().data == b"x")

    loop.run_until_complete(main())


def test_a_protocol_without_connection_made(loop):
    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with a, b:
            with pytest.raises(AttributeError, match="connection_made"):
                loop._make_socket_transport(a, object())
            a.send(b"still ours")
            assert loop._open_handles() == []

    loop.run_until_complete(main())


def test_a_cancelled_waiter(loop):
    async def main():
        waiter = loop.create_future()
        waiter.cancel()
        async with connected(waiter=waiter) as (transport, peer):
            peer.send(b"x")
            await until(lambda: transport.get_protocol().data == b"x")

    loop.run_until_complete(main())


def test_one_transport_for_a_descriptor(loop):
    async def main():
        async with connected() as (transport, _):
            with pytest.raises(RuntimeError, match="is used by transport <StreamTransport fd="):
                loop._make_socket_transport(transport._sock, Recorder())

    loop.run_until_complete(main())


def test_what_is_no_socket(loop):
    with pytest.raises(ValueError, match="Invalid file object"):
        loop._make_socket_transport(object(), object())
    with pytest.raises(TypeError):
        loop._make_socket_transport()
    with pytest.raises(TypeError, match="unexpected"):
        loop._make_socket_transport(1, 2, unexpected=3)


def test_context_of_a_given_one(loop):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Protocol(Recorder):
        def connection_made(self, transport):
            seen.append(variable.get())
            variable.set("made")
            super().connection_made(transport)

        def data_received(self, data):
            seen.append(variable.get())

        def connection_lost(self, exc):
            seen.append(variable.get())
            super().connection_lost(exc)

    async def main():
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        variable.set("main")
        async with connected(Protocol, context=context) as (_, peer):
            peer.send(b"x")
            await until(lambda: len(seen) == 2)
        assert context[variable] == "made"

    loop.run_until_complete(main())
    assert seen == ["given", "made", "made"]


# --- flow control


def test_limits(loop):
    async def main():
        async with connected() as (transport, _):
            get, set_limits = transport.get_write_buffer_limits, transport.set_write_buffer_limits
            assert get() == (16384, 65536)
            set_limits(high=1000)
            assert get() == (250, 1000)
            set_limits(low=1000)
            assert get() == (1000, 4000)
            set_limits(1000, 10)
            assert get() == (10, 1000)
            set_limits(high=0)
            assert get() == (0, 0)
            set_limits(high=2**70)
            assert get()[1] == sys.maxsize
            set_limits(low=math.inf)
            assert get() == (sys.maxsize, sys.maxsize)
            set_limits(high=1000.5)
            assert get() == (250, 1000)
            set_limits(math.inf, 10.5)
            assert get() == (10, sys.maxsize)
            set_limits()
            assert get() == (16384, 65536)
            for high, low in ((1, 2), (-1, None), (None, -1), (5, -1), (math.nan, 1)):
                with pytest.raises(ValueError, match=r"^high \(.*\) must be >= low \(.*\) must"):
                    set_limits(high, low)
            with pytest.raises(TypeError):
                set_limits("many")
            assert get() == (16384, 65536)

    loop.run_until_complete(main())


def fill(transport):
    """Write until the kernel takes no more; how much that was."""
    total = 0
    while transport.get_write_buffer_size() == 0:
        transport.write(b"x" * 1000)
        total += 1000
    return total


def test_pause_and_resume(loop):
    async def main():
        async with connected() as (transport, peer):
            calls = transport.get_protocol().calls
            total = fill(transport)
            size = transport.get_write_buffer_size()
            assert calls == ["made"]
            transport.write(b"x" * (65536 - size))
            assert transport.get_write_buffer_size() == 65536
            assert calls == ["made"]
            assert not transport._protocol_paused
            transport.write(b"x")
            assert calls == ["made", "pause"]
            assert transport._protocol_paused
            transport.write(b"x")
            assert calls == ["made", "pause"]
            total += 65536 - size + 2
            assert len(await read_all(peer, total)) == total
            assert calls == ["made", "pause", "resume"]
            assert transport.get_write_buffer_size() == 0

    loop.run_until_complete(main())


def test_resumed_at_the_low_mark(loop):
    sizes = []

    class Protocol(Recorder):
        def resume_writing(self):
            sizes.append(self.transport.get_write_buffer_size())

    async def main():
        async with connected(Protocol) as (transport, peer):
            transport.set_write_buffer_limits(high=300_000, low=200_000)
            total = fill(transport) + 500_000
            transport.write(b"x" * 500_000)
            while not sizes:
                total -= len(await loop.sock_recv(peer, 10_000))
            assert 0 < sizes[0] <= 200_000
            await read_all(peer, total)

    loop.run_until_complete(main())
    assert len(sizes) == 1


def test_lower_limits_pause_at_once(loop):
    async def main():
        async with connected() as (transport, peer):
            total = fill(transport)
            calls = transport.get_protocol().calls
            assert "pause" not in calls
            transport.set_write_buffer_limits(high=0)
            assert calls[-1] == "pause"
            await read_all(peer, total)
            await until(lambda: calls[-1] == "resume")

    loop.run_until_complete(main())


def test_errors_of_flow_control_are_reported(loop, reports):
    class Protocol(Recorder):
        def pause_writing(self):
            raise ZeroDivisionError

        def resume_writing(self):
            raise KeyError

    async def main():
        async with connected(Protocol) as (transport, peer):
            total = fill(transport) + 100_000
            transport.write(b"x" * 100_000)
            await read_all(peer, total)
            await turns()
            paused, resumed = reports.take()
            assert paused["message"] == "protocol.pause_writing() failed"
            assert isinstance(paused["exception"], ZeroDivisionError)
            assert resumed["message"] == "protocol.resume_writing() failed"
            assert isinstance(resumed["exception"], KeyError)
            assert paused["transport"] is resumed["transport"] is transport
            assert paused["protocol"] is transport.get_protocol()

    loop.run_until_complete(main())


# --- closing


def test_close(loop):
    async def main():
        async with connected() as (transport, peer):
            protocol = transport.get_protocol()
            assert not transport.is_closing()
            transport.write(b"last words")
            transport.close()
            transport.close()
            assert transport.is_closing()
            assert protocol.calls == ["made"]
            assert await protocol.lost is None
            assert protocol.calls == ["made", "lost"]
            assert await read_all(peer) == b"last words"
            assert transport._loop is transport._sock is transport.get_protocol() is None
            # Whatever is called now does nothing.
            transport.close()
            transport.abort()
            transport.pause_reading()
            transport.resume_reading()
            transport.write(b"x")
            transport.writelines([b"x"])
            transport.write_eof()
            transport._force_close(None)
            transport._fatal_error(ValueError())
            transport.set_write_buffer_limits(5)
            assert transport.get_write_buffer_size() == 0
            await turns()

    loop.run_until_complete(main())


def test_close_waits_for_what_was_written(loop):
    async def main():
        async with connected() as (transport, peer):
            protocol = transport.get_protocol()
            transport.write(b"x" * 3_000_000)
            transport.close()
            await turns()
            assert not protocol.lost.done()
            assert len(await read_all(peer)) == 3_000_000
            assert await protocol.lost is None

    loop.run_until_complete(main())


def test_abort_does_not_wait(loop):
    async def main():
        async with connected() as (transport, peer):
            protocol = transport.get_protocol()
            total = fill(transport)
            unsent = transport.get_write_buffer_size()
            assert unsent > 0
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            assert await protocol.lost is None
            assert len(await read_all(peer)) == total - unsent

    loop.run_until_complete(main())


def test_what_was_written_before_abort_is_on_its_way(loop):
    """On asyncio write() sends at once."""

    async def main():
        async with connected() as (transport, peer):
            transport.write(b"bye")
            transport.abort()
            assert await read_all(peer) == b"bye"

    loop.run_until_complete(main())


def test_closing_from_connection_made(loop):
    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()

    async def main():
        async with connected(Protocol) as (transport, peer):
            assert await read_all(peer) == b""
            assert transport._protocol is None

    loop.run_until_complete(main())


def test_closing_before_connection_made(loop):
    """It is still called first."""

    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            protocol = Recorder()
            loop._make_socket_transport(a, protocol).close()
            await protocol.lost
            assert protocol.calls == ["made", "lost"]

    loop.run_until_complete(main())


def test_an_error_in_connection_lost_is_reported(loop, reports):
    class Protocol(Recorder):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ZeroDivisionError

    async def main():
        async with connected(Protocol) as (transport, peer):
            transport.close()
            assert await read_all(peer) == b""
            (report,) = reports.take()
            assert isinstance(report["exception"], ZeroDivisionError)
            assert "_call_connection_lost" in report["message"]

    loop.run_until_complete(main())


def test_force_close_tells_why(loop):
    async def main():
        for error in (None, ValueError("mine")):
            async with connected() as (transport, _):
                protocol = transport.get_protocol()
                transport._force_close(error)
                transport._force_close(KeyError("only the first counts"))
                assert await protocol.lost is error

    loop.run_until_complete(main())


@pytest.mark.parametrize("message", [(), ("mine",)])
def test_fatal_error(loop, reports, message):
    async def main():
        async with connected() as (transport, _):
            protocol = transport.get_protocol()
            error = ValueError("mine")
            transport._fatal_error(error, *message)
            (report,) = reports.take()
            assert report["message"] == (message or ("Fatal error on transport",))[0]
            assert report["exception"] is error
            assert report["transport"] is transport
            assert report["protocol"] is protocol
            assert await protocol.lost is error
        async with connected() as (transport, _):
            protocol = transport.get_protocol()
            error = ConnectionResetError()
            transport._fatal_error(error, *message)
            assert await protocol.lost is error

    loop.run_until_complete(main())


def test_debug_mode_logs(loop, caplog):
    loop.set_debug(True)
    caplog.set_level(logging.DEBUG, "asyncio")

    async def main():
        async with connected() as (transport, peer):
            transport.pause_reading()
            transport.resume_reading()
            transport._fatal_error(ConnectionResetError("gone"), "why")
            await turns()
        async with connected() as (transport, peer):
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in transport.get_protocol().calls if transport._loop else 1)

    loop.run_until_complete(main())
    texts = [record.getMessage() for record in caplog.records]
    for text in ("pauses reading", "resumes reading", ": why", "received EOF"):
        assert any(text in line and "<StreamTransport " in line for line in texts), text


# --- the life of the object


def test_an_open_transport_is_kept_alive(loop):
    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            protocol = Recorder()
            reference = weakref.ref(loop._make_socket_transport(a, protocol))
            await protocol.made
            protocol.transport = None
            gc.collect()
            assert reference() is not None
            reference().close()
            await protocol.lost
            del protocol
            await turns()
            gc.collect()
            assert reference() is None

    loop.run_until_complete(main())


@pytest.mark.parametrize("way", ["paused", "ended"])
def test_one_that_waits_for_nothing_is_not(loop, way):
    """Stock asyncio forgets it too: nobody holds it but its protocol."""

    class Holding(Recorder):
        keep_open = True

    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            protocol = Holding()
            calls, lost = protocol.calls, protocol.lost
            transport = loop._make_socket_transport(a, protocol)
            await protocol.made
            await turns()
            if way == "paused":
                transport.pause_reading()
            else:
                b.shutdown(socket.SHUT_WR)
                await until(lambda: "eof" in calls)
            gone = [weakref.ref(transport), weakref.ref(protocol)]
            gc.collect()
            assert gone[0]() is transport
            assert not transport.is_closing()
            del transport
            protocol.made.cancel()
            gc.collect()
            assert gone[1]() is protocol
            del protocol
            with pytest.warns(ResourceWarning, match="^unclosed transport") as caught:
                gc.collect()
            del caught
            gc.collect()
            assert [reference() for reference in gone] == [None, None]
            assert a.fileno() == -1
            assert calls[0] == "made"
            assert "lost" not in calls
            lost.cancel()
            await turns()
            assert loop._open_handles() == []

    loop.run_until_complete(main())


def test_one_that_has_something_to_send_is(loop):
    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            transport = loop._make_socket_transport(a, Recorder())
            await transport.get_protocol().made
            transport.pause_reading()
            transport.write(b"x" * 1_000_000)
            transport.get_protocol().transport = None
            reference = weakref.ref(transport)
            del transport
            await turns()
            gc.collect()
            assert reference() is not None
            b.setblocking(False)
            assert len(await read_all(b, 1_000_000)) == 1_000_000
            await turns()
            with pytest.warns(ResourceWarning, match="^unclosed transport"):
                gc.collect()
            assert a.fileno() == -1

    loop.run_until_complete(main())


def test_descriptors_that_are_used_again(loop):
    """The uvhandle of a number stays open from connection to connection."""

    async def main():
        for _ in range(20):
            async with connected() as (transport, peer):
                peer.send(b"hello")
                await until(lambda: transport.get_protocol().data == b"hello")
                fd = transport._sock_fd
            assert loop._open_handles() == []
            # Now a file's, which cannot be watched; a watcher's; a pipe's.
            renumber(socket.socket(socket.AF_UNIX).detach(), fd)
            sock = socket.socket(fileno=fd)
            renumber(os.open(os.devnull, os.O_RDONLY), fd)
            try:
                with pytest.raises(OSError, match=r"perm|EPERM"):
                    loop._make_socket_transport(sock, Recorder())
                sock.detach()
                with pytest.raises(OSError, match=r"perm|EPERM"):
                    loop.add_reader(fd, print)
            finally:
                os.close(fd)
            right, left = socket.socketpair()
            with left:
                renumber(right.detach(), fd)
                ready = loop.create_future()
                loop.add_reader(fd, ready.set_result, None)
                left.send(b"x")
                await ready
                loop.remove_reader(fd)
                os.close(fd)

    loop.run_until_complete(main())


def renumber(fd, wanted):
    if fd != wanted:
        os.dup2(fd, wanted)
        os.close(fd)


def test_closing_the_loop_closes_what_is_open():
    import ouroloop

    loop = ouroloop.new_event_loop()

    async def main():
        a, b = socket.socketpair()
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        transport.write(b"x" * 1_000_000)
        return a, b, transport, protocol

    a, b, transport, protocol = loop.run_until_complete(main())
    with b:
        with pytest.warns(ResourceWarning, match="^unclosed transport <StreamTransport fd="):
            loop.close()
        assert a.fileno() == -1
        assert protocol.calls == ["made", "pause"]
        assert transport.is_closing()
        transport.close()
        transport.abort()
        transport.write(b"x")
        assert repr(transport).startswith("<StreamTransport closed fd=")


def test_so_does_closing_it_with_warnings_as_errors(capsys):
    import ouroloop

    loop = ouroloop.new_event_loop()
    errors = []
    hook, sys.unraisablehook = sys.unraisablehook, errors.append
    try:
        a, b = socket.socketpair()
        with b:
            loop.run_until_complete(loop.create_connection(Recorder, sock=a))
            loop.close()
            assert a.fileno() == -1
    finally:
        sys.unraisablehook = hook
    assert [type(error.exc_value) for error in errors] == [ResourceWarning]


def closing_ways():
    """Name, whether the socket is one for datagrams, and what opens a transport while `close()`
    is called, which closes the loop."""

    def connect(loop, sock, close, factory=asyncio.Protocol):
        return loop.create_connection(factory, sock=sock)

    def before(loop, sock, close):
        close()
        return connect(loop, sock, close)

    def datagrams_before(loop, sock, close):
        close()
        return loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)

    def factory(loop, sock, close):
        return connect(loop, sock, close, lambda: close() or asyncio.Protocol())

    def attribute(loop, sock, close):
        class Protocol:
            @property
            def connection_made(self):
                close()
                return print

        return connect(loop, sock, close, Protocol)

    def instance_check(loop, sock, close):
        class Protocol(asyncio.Protocol):
            @property
            def __class__(self):
                close()
                return asyncio.Protocol

        return connect(loop, sock, close, Protocol)

    def server(loop, sock, close):
        class Server:
            def _attach(self, *args):
                close()

            def _detach(self, *args):
                pass

        async def open_transport():
            loop._make_socket_transport(sock, asyncio.Protocol(), server=Server())

        return open_transport()

    return [before, datagrams_before, factory, attribute, instance_check, server]


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
@pytest.mark.parametrize("way", closing_ways(), ids=lambda way: way.__name__)
def test_opening_on_a_loop_that_is_closed(way):
    """Before, or by the Python code that opening one runs."""
    import ouroloop

    loop = ouroloop.new_event_loop()
    kind = socket.SOCK_DGRAM if way.__name__ == "datagrams_before" else socket.SOCK_STREAM
    a, b = socket.socketpair(type=kind)
    a.setblocking(False)
    with a, b:
        opening = way(loop, a, loop.close)
        with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
            opening.send(None)
        assert loop.is_closed()


def test_a_forgotten_loop_with_transports_is_collected():
    import ouroloop

    a, b = socket.socketpair()

    def forget():
        loop = ouroloop.new_event_loop()
        transport, protocol = loop.run_until_complete(loop.create_connection(Recorder, sock=a))
        gone = [weakref.ref(thing) for thing in (loop, transport, protocol)]
        del loop, transport, protocol
        gc.collect()
        return gone

    with b:
        with pytest.warns(ResourceWarning) as caught:
            gone = forget()
        texts = sorted(str(warning.message)[:19] for warning in caught)
        assert texts == ["unclosed event loop", "unclosed transport "]
        # Warnings hold what they are about.
        del caught
        gc.collect()
        assert [reference() for reference in gone] == [None] * 3
        assert a.fileno() == -1


def test_a_closed_transport_is_not_a_cycle(loop):
    """So that no garbage collection is needed to free connections."""
    gone = []

    async def main():
        async with tcp_pair() as ends:
            gone.extend(weakref.ref(end) for end in ends)
        await turns()

    gc.disable()
    try:
        loop.run_until_complete(main())
        # What is left are the protocols of the test itself, which hold their transports.
        gc.collect()
    finally:
        gc.enable()
    assert [reference() for reference in gone] == [None, None]


def test_descriptors_are_closed_once(loop):
    """A number that is closed twice could be somebody else's the second time."""

    async def main():
        for _ in range(20):
            async with tcp_pair() as (client, server):
                numbers = client._sock_fd, server._sock_fd
                client.close()
                await until(lambda: client._loop is server._loop is None)
                mine = [os.dup(0) for _ in range(8)]
                assert set(numbers) & set(mine)
                client.close()
                server.abort()
                await turns()
                for number in mine:
                    os.close(number)

    loop.run_until_complete(main())


def test_attributes_and_weak_references(loop):
    async def main():
        async with connected() as (transport, _):
            transport.mine = 1
            transport.write = None
            assert vars(transport) == {"mine": 1, "write": None}
            del transport.write
            assert weakref.ref(transport)() is transport
            assert isinstance(transport, asyncio.Transport)

    loop.run_until_complete(main())


def test_it_is_gone_when_the_run_in_which_it_was_lost_is_over(loop):
    class Forgets(asyncio.Protocol):
        """Keeps nothing of its transport, like a TLS protocol whose handshake failed."""

        def __init__(self):
            self.lost = asyncio.get_running_loop().create_future()

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    async def main():
        ours, peer = socket.socketpair()
        with peer:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                Forgets, sock=ours
            )
            transport.abort()
            await protocol.lost
            return weakref.ref(transport)

    gc.disable()
    try:
        assert loop.run_until_complete(main())() is None
    finally:
        gc.enable()


# --- what those see who are told of an error


@pytest.mark.parametrize("method", ["data_received", "get_buffer", "eof_received", "pause_writing"])
def test_errors_are_being_handled_while_they_are_reported(loop, method):
    """logging.exception() in a handler shows them, as on asyncio."""
    seen = []
    loop.set_exception_handler(
        lambda loop, context: seen.append((context["exception"], sys.exc_info()[1]))
    )

    def fail(*args):
        raise ZeroDivisionError

    kind = asyncio.BufferedProtocol if method == "get_buffer" else asyncio.Protocol
    protocol_type = type("Failing", (kind,), {method: fail})

    async def main():
        a, b = socket.socketpair()
        with b:
            transport, _ = await loop.create_connection(protocol_type, sock=a)
            if method == "pause_writing":
                transport.write(b"x" * 1_000_000)
            else:
                b.send(b"x")
                b.shutdown(socket.SHUT_WR)
            await until(lambda: seen)
            transport.abort()
            await turns()

    loop.run_until_complete(main())
    ((error, handled),) = seen
    assert type(error) is ZeroDivisionError
    assert handled is error
