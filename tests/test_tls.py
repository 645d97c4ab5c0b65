"""csrc/tls.c: what TLS connections read, from a peer whose every byte is in the test's hands."""

import asyncio
import contextlib
import gc
import socket
import ssl
import sys
import weakref

import ouroloop
import pytest
from network import Recorder, turns, until
from tls_peer import (
    HOST,
    Peer,
    client_context,
    new_design,
    new_server_context,
    server_context,
    socket_pair,
)

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@contextlib.asynccontextmanager
async def client_and_peer(factory=Recorder, version=None, **options):
    """A TLS client of the running loop and the server by hand at its other end.  The options
    are attributes of its SSLContext."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket_pair()
    if version:
        options["maximum_version"] = version
    context = client_context(**options)
    with theirs:
        peer = Peer(theirs, server_context())
        shaking = loop.create_task(peer.handshake())
        transport, protocol = await loop.create_connection(
            factory, sock=ours, ssl=context, server_hostname=HOST
        )
        await shaking
        try:
            yield transport, protocol, peer
        finally:
            transport.abort()
            await turns()


@pytest.mark.parametrize("version", VERSIONS)
def test_records_cut_anywhere(loop, version):
    """Whole records are read when they are there, whatever the pieces that they come in."""
    pieces = [bytes([n]) * size for n, size in enumerate((1, 5, 100, 16384, 0, 3000, 1))]

    async def main():
        async with client_and_peer(version=version) as (_, protocol, peer):
            wanted = b""
            for cut in (1, 4, 5, 6, 7, 1000, 16389, 16400, 16405, 17000):
                wire = peer.records(*filter(None, pieces))
                wanted += b"".join(pieces)
                await loop.sock_sendall(peer.sock, wire[:cut])
                await turns()
                before = len(protocol.data)
                await loop.sock_sendall(peer.sock, wire[cut:])
                await until(lambda wanted=wanted: len(protocol.data) == len(wanted))
                assert protocol.data == wanted
                assert before < len(wanted)

    loop.run_until_complete(main())


def test_byte_by_byte(loop):
    async def main():
        async with client_and_peer() as (_, protocol, peer):
            wire = peer.records(b"first", b"second", b"x" * 300)
            for at in range(len(wire)):
                await loop.sock_sendall(peer.sock, wire[at : at + 1])
                await asyncio.sleep(0)
            await until(lambda: protocol.data == b"firstsecond" + b"x" * 300)

    loop.run_until_complete(main())


@new_design
def test_many_records_are_one_piece(loop):
    async def main():
        async with client_and_peer() as (_, protocol, peer):
            # The tickets that follow a handshake are out of the way.
            await peer.send(b"-")
            await until(lambda: protocol.data == b"-")
            protocol.calls.clear()
            await loop.sock_sendall(peer.sock, peer.records(*[b"abc"] * 10))
            await until(lambda: len(protocol.data) == 31)
            assert protocol.calls == ["data"]

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.0\r\n\r\n", b"\x17\x03\x03\x00\x05abcde", b"\0"]
)
def test_garbage_ends_the_connection(loop, reports, garbage):
    async def main():
        async with client_and_peer() as (_, protocol, peer):
            await loop.sock_sendall(peer.sock, garbage * 4)
            peer.sock.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(protocol.lost, 5)
            assert protocol.data == b""

    loop.run_until_complete(main())
    reports.take()  # That the outcome is asyncio's is shown in test_bad_tls.py.


@new_design
def test_a_part_of_a_record_is_not_read(loop):
    """No call of the SSLObject, and no exception of it, for what cannot be decrypted yet."""
    reads = []

    async def main():
        async with client_and_peer() as (transport, protocol, peer):
            await peer.send(b"-")
            await until(lambda: protocol.data == b"-")
            wire = peer.records(b"x" * 1000)
            sys.setprofile(
                lambda frame, event, arg: (
                    event in ("c_call", "c_exception") and reads.append((event, arg.__name__))
                )
            )
            try:
                await loop.sock_sendall(peer.sock, wire[:900])
                await turns()
                await loop.sock_sendall(peer.sock, wire[900:])
                await until(lambda: len(protocol.data) == 1001)
            finally:
                sys.setprofile(None)
            assert transport is not None

    loop.run_until_complete(main())
    assert ("c_exception", "read") not in reads


class Buffered(asyncio.BufferedProtocol):
    """Keeps what comes into a buffer of a certain size."""

    size = 7

    def __init__(self):
        self.hints, self.data, self.calls = [], b"", []
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        self.hints.append(sizehint)
        self.buffer = bytearray(self.size)
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes):
        assert 0 < nbytes <= self.size
        self.calls.append(nbytes)
        self.data += self.buffer[:nbytes]

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@pytest.mark.parametrize("size", [1, 7, 64, 16384, 100000])
def test_buffered_protocol(loop, size):
    async def main():
        async with client_and_peer(Buffered) as (_, protocol, peer):
            protocol.size = size
            await peer.send(b"one")
            await until(lambda: protocol.data == b"one")
            await loop.sock_sendall(peer.sock, peer.records(b"a" * 63, b"b", b"c" * 200))
            await until(lambda: len(protocol.data) == 267)
            assert protocol.data == b"one" + b"a" * 63 + b"b" + b"c" * 200
            # What was left in a record is not forgotten by another protocol.
            assert max(protocol.calls) <= size

    loop.run_until_complete(main())


def test_a_bytearray_as_buffer(loop):
    class Plain(Buffered):
        size = 50

        def get_buffer(self, sizehint):
            super().get_buffer(sizehint)
            return self.buffer

    async def main():
        async with client_and_peer(Plain) as (_, protocol, peer):
            await loop.sock_sendall(peer.sock, peer.records(b"a" * 20, b"b" * 20, b"c" * 20))
            await until(lambda: len(protocol.data) == 60)
            assert protocol.data == b"a" * 20 + b"b" * 20 + b"c" * 20

    loop.run_until_complete(main())


@new_design
def test_set_protocol_in_the_middle_of_a_record(loop):
    class OneByOne(Buffered):
        size = 3

        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            if len(self.data) == 6:
                self.transport.set_protocol(self.other)

    async def main():
        async with client_and_peer(OneByOne) as (_, protocol, peer):
            protocol.other = other = Recorder()
            await peer.send(b"abcdefghij")
            await until(lambda: other.data == b"ghij")
            assert protocol.data == b"abcdef"
            protocol.transport.abort()
            await other.lost

    loop.run_until_complete(main())


def test_paused_reading(loop):
    async def main():
        async with client_and_peer() as (transport, protocol, peer):
            transport.pause_reading()
            assert not transport.is_reading()
            await peer.send(b"later")
            await turns(10)
            if sys.version_info >= (3, 11):
                assert protocol.data == b""
            transport.resume_reading()
            await until(lambda: protocol.data == b"later")

    loop.run_until_complete(main())


@new_design
def test_read_high_water(loop):
    async def main():
        async with client_and_peer() as (transport, protocol, peer):
            assert transport.get_read_buffer_limits() == (64 * 1024, 256 * 1024)
            transport.set_read_buffer_limits(high=1000)
            transport.pause_reading()
            await peer.send(b"x" * 5000)
            below = transport._ssl_protocol._transport
            await until(lambda: not below.is_reading())
            assert transport.get_read_buffer_size() > 1000
            transport.resume_reading()
            await until(lambda: len(protocol.data) == 5000)
            assert below.is_reading()
            assert transport.get_read_buffer_size() == 0

    loop.run_until_complete(main())


def test_close_notify_and_eof(loop):
    async def main():
        for ragged in (False, True):
            async with client_and_peer() as (_, protocol, peer):
                await peer.send(b"last")
                if not ragged:
                    await peer.close()
                peer.sock.shutdown(socket.SHUT_WR)
                assert await asyncio.wait_for(protocol.lost, 5) is None
                assert protocol.data == b"last"
                if sys.version_info >= (3, 11):
                    assert protocol.calls == ["made", "data", "eof", "lost"]

    loop.run_until_complete(main())


class Speaks(ssl.SSLObject):
    """An SSLObject that wants to be asked."""

    reads = writes = handshakes = 0

    def read(self, *args):
        type(self).reads += 1
        return super().read(*args)

    def write(self, data):
        type(self).writes += 1
        return super().write(data)

    def do_handshake(self):
        type(self).handshakes += 1
        return super().do_handshake()


def test_a_subclass_of_sslobject_is_asked(loop):
    async def main():
        ours, theirs = socket_pair()
        context = client_context(sslobject_class=Speaks)
        with theirs:
            peer = Peer(theirs, server_context())
            shaking = loop.create_task(peer.handshake())
            transport, protocol = await loop.create_connection(
                Recorder, sock=ours, ssl=context, server_hostname=HOST
            )
            await shaking
            assert type(transport.get_extra_info("ssl_object")) is Speaks
            transport.write(b"out")
            assert await peer.read(3) == b"out"
            await loop.sock_sendall(peer.sock, peer.records(b"in", b"to"))
            await until(lambda: protocol.data == b"into")
            transport.abort()
            await protocol.lost
        assert Speaks.reads
        assert Speaks.writes == 1
        assert Speaks.handshakes >= 2

    loop.run_until_complete(main())


def test_an_sslobject_that_refuses_is_believed(loop):
    class Refuses(ssl.SSLObject):
        def do_handshake(self):
            super().do_handshake()
            raise ssl.SSLCertVerificationError("not him")

    async def main():
        ours, theirs = socket_pair()
        with theirs:
            peer = Peer(theirs, server_context())
            shaking = loop.create_task(peer.handshake())
            with pytest.raises(ssl.SSLCertVerificationError, match="not him"):
                await loop.create_connection(
                    Recorder,
                    sock=ours,
                    ssl=client_context(sslobject_class=Refuses),
                    server_hostname=HOST,
                )
            shaking.cancel()
            await asyncio.wait([shaking])

    loop.run_until_complete(main())


def tls_server(loop, factory, **options):
    return loop.create_server(factory, "127.0.0.1", 0, ssl=server_context(), **options)


@new_design
def test_tls_in_tls(loop):
    """Three layers, each with its own certificate check."""

    async def main():
        inner, accepted = [], []
        ready = asyncio.Event()

        class Outer(Recorder):
            def connection_made(self, transport):
                accepted.append(transport)
                super().connection_made(transport)
                ready.set()

        server = await tls_server(loop, Outer)
        client, _ = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=HOST
        )
        await ready.wait()
        ours, theirs = client, accepted[0]
        for _ in range(2):
            inner = [Recorder(), Recorder()]
            ours, theirs = await asyncio.gather(
                loop.start_tls(ours, inner[0], client_context(), server_hostname=HOST),
                loop.start_tls(theirs, inner[1], server_context(), server_side=True),
            )
            for transport, protocol in zip((ours, theirs), inner, strict=True):
                protocol.transport = transport
        block = bytes(range(256)) * 4096
        ours.write(b"hello")
        ours.write(block)
        await until(lambda: len(inner[1].data) == 5 + len(block))
        assert inner[1].data == b"hello" + block
        theirs.write(block)
        await until(lambda: inner[0].data == block)
        assert ours.get_extra_info("peername") == server.sockets[0].getsockname()
        ours.close()
        await asyncio.wait_for(asyncio.gather(inner[0].lost, inner[1].lost), 5)
        theirs.close()
        server.close()
        await turns(10)

    loop.run_until_complete(main())


def test_start_tls_over_a_transport_of_somebody_else(loop):
    """The protocol sits on anything that has a transport's methods."""

    class Wire(asyncio.Transport):
        _start_tls_compatible = True
        other = protocol = None
        closed = False

        def __init__(self):
            super().__init__()
            self.written = []

        def set_protocol(self, protocol):
            self.protocol = protocol

        def get_protocol(self):
            return self.protocol

        def pause_reading(self):
            pass

        def resume_reading(self):
            pass

        def is_closing(self):
            return self.closed

        def write(self, data):
            loop.call_soon(self.other.feed, bytes(data))

        def feed(self, data):
            while data and not self.closed:
                buffer = self.protocol.get_buffer(len(data))
                size = min(len(buffer), len(data))
                buffer[:size] = data[:size]
                data = data[size:]
                self.protocol.buffer_updated(size)

        def close(self):
            if not self.closed:
                self.closed = True
                loop.call_soon(self.protocol.connection_lost, None)

        def _force_close(self, exc):
            self.close()

        abort = close

    if sys.version_info < (3, 11):
        Wire.feed = lambda self, data: self.closed or self.protocol.data_received(data)

    async def main():
        a, b = Wire(), Wire()
        a.other, b.other = b, a
        ours, theirs = Recorder(), Recorder()
        client, server = await asyncio.gather(
            loop.start_tls(a, ours, client_context(), server_hostname=HOST),
            loop.start_tls(b, theirs, server_context(), server_side=True),
        )
        block = bytes(1000) * 300
        client.write(block)
        await until(lambda: theirs.data == block)
        server.write(b"thanks")
        await until(lambda: ours.data == b"thanks")
        client.close()
        await until(lambda: "lost" in theirs.calls or theirs.lost.done() or b.closed or a.closed)
        server.close()
        b.close()
        a.close()
        await turns()

    loop.run_until_complete(main())


@new_design
def test_nothing_is_left_behind(loop):
    """Without the garbage collector's help, a connection that has ended is gone."""
    gone = []

    class Watched(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            gone.extend(weakref.ref(thing) for thing in (self, transport, transport._ssl_protocol))

    async def main():
        server = await tls_server(loop, Watched)
        transport, protocol = await loop.create_connection(
            Watched, *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=HOST
        )
        transport.write(b"x")
        transport.close()
        await protocol.lost
        server.close()
        await turns(10)

    gc.collect()
    gc.disable()
    try:
        loop.run_until_complete(main())
        # The transport holds its protocol until its own end, as asyncio's does.
        loop.run_until_complete(turns(5))
        assert len(gone) == 6
        alive = [ref() for ref in gone if ref() is not None]
        assert [type(thing).__name__ for thing in alive if isinstance(thing, Recorder)] == []
    finally:
        gc.enable()
    gc.collect()
    assert [ref() for ref in gone if ref() is not None] == []


def test_collected_in_the_middle(loop):
    """The garbage collector runs in every callback of a connection's life."""

    class Collects(Recorder):
        def connection_made(self, transport):
            gc.collect()
            super().connection_made(transport)

        def data_received(self, data):
            super().data_received(data)
            gc.collect()
            self.transport.write(data[:10])

        def connection_lost(self, exc):
            gc.collect()
            super().connection_lost(exc)
            self.transport.close()

    async def main():
        server = await tls_server(loop, Collects)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=HOST
        )
        transport.write(b"0123456789abcdef")
        await until(lambda: protocol.data == b"0123456789")
        transport.close()
        await protocol.lost
        server.close()
        await turns(10)

    loop.run_until_complete(main())


def test_loop_closed_with_open_connections():
    loop = ouroloop.new_event_loop()
    made = []

    class Keeps(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            made.append(transport)

    async def main():
        server = await tls_server(loop, Keeps)
        await loop.create_connection(
            Keeps, *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=HOST
        )
        await until(lambda: len(made) == 2)
        made[0].write(b"never mind")
        server.close()

    loop.run_until_complete(main())
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        loop.close()
    for transport in made:
        transport.get_extra_info("cipher")
        if sys.version_info >= (3, 11):
            assert transport.get_write_buffer_size() == 0
        transport._closed = True
    made.clear()
    gc.collect()


def test_cancelled_handshake(loop):
    async def main():
        ours, theirs = socket_pair()
        with theirs:
            connecting = loop.create_task(
                loop.create_connection(
                    Recorder, sock=ours, ssl=client_context(), server_hostname=HOST
                )
            )
            await turns(5)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await turns(5)
            assert ours.fileno() == -1

    loop.run_until_complete(main())


class Closes(Recorder):
    """Without it the transport of 3.10 calls itself unclosed."""

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.transport.close()


def test_sni_alpn_and_session(loop):
    async def main():
        server_ssl, asked = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), []
        chosen = new_server_context()
        chosen.set_alpn_protocols(["h2", "http/1.1"])

        def choose(sslobj, name, context):
            asked.append(name)
            sslobj.context = chosen

        server_ssl.sni_callback = choose
        server = await loop.create_server(Closes, "127.0.0.1", 0, ssl=server_ssl)
        client_ssl = client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
        client_ssl.set_alpn_protocols(["http/1.1"])
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname(), ssl=client_ssl, server_hostname=HOST
        )
        sslobj = transport.get_extra_info("ssl_object")
        assert sslobj.selected_alpn_protocol() == "http/1.1"
        assert asked == [HOST]
        assert sslobj.session is not None
        assert transport.get_extra_info("sslcontext") is client_ssl
        assert transport.get_extra_info("peercert")["subjectAltName"][0] == ("DNS", HOST)
        assert transport.get_extra_info("cipher") == sslobj.cipher()
        assert transport.get_extra_info("compression") is None
        assert transport.get_extra_info("socket").type == socket.SOCK_STREAM
        assert transport.get_extra_info("nothing", 5) == 5
        transport.close()
        await protocol.lost
        server.close()
        await turns(5)

    loop.run_until_complete(main())
