"""csrc/tls_type.c and ouroloop.tls: the types, their attributes and lives."""

import asyncio
import gc
import ssl
import sys
import weakref
from asyncio import sslproto, transports

import pytest
from network import Recorder, turns
from ouroloop import _core, tls
from test_tls import client_and_peer
from tls_peer import HOST, client_context, new_design

pytestmark = new_design


def new_protocol(loop, **options):
    return tls.TlsProtocol(
        loop, Recorder(), client_context(), None, server_hostname=HOST, **options
    )


def test_they_are_what_asyncio_calls_so(loop):
    async def main():
        async with client_and_peer() as (transport, protocol, _):
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, transports._FlowControlMixin)
            assert isinstance(transport, sslproto._SSLProtocolTransport)
            ssl_protocol = transport._ssl_protocol
            assert isinstance(ssl_protocol, asyncio.BufferedProtocol)
            assert isinstance(ssl_protocol, sslproto.SSLProtocol)
            assert isinstance(ssl_protocol, _core.TlsProtocol)
            assert transport.get_protocol() is protocol is ssl_protocol._app_protocol
            assert ssl_protocol._app_transport is transport
            assert isinstance(ssl_protocol._sslobj, ssl.SSLObject)
            assert isinstance(ssl_protocol._transport, _core.StreamTransport)
            assert ssl_protocol._extra["sslcontext"] is ssl_protocol._sslcontext
            assert ssl_protocol._state is sslproto.SSLProtocolState.WRAPPED
            assert transport._start_tls_compatible is True
            assert transport._sendfile_compatible.name == "FALLBACK"
            assert transport.can_write_eof() is False
            with pytest.raises(NotImplementedError):
                transport.write_eof()

    loop.run_until_complete(main())


def test_anything_can_be_set_and_referred_to(loop):
    async def main():
        async with client_and_peer() as (transport, _, _):
            for thing in (transport, transport._ssl_protocol):
                thing.mark = 5
                assert thing.mark == 5
                assert weakref.ref(thing)() is thing

    loop.run_until_complete(main())


def test_a_transports_write_can_be_replaced(loop):
    async def main():
        async with client_and_peer() as (transport, _, peer):
            transport.write = lambda data: type(transport).write(transport, data[::-1])
            transport.write(b"abc")
            assert await peer.read(3) == b"cba"

    loop.run_until_complete(main())


def test_attributes_of_the_protocol(loop):
    async def main():
        protocol = new_protocol(loop)
        protocol._app_transport._closed = True
        for name in ("_app_protocol", "_incoming", "_outgoing", "_sslobj", "_transport", "_state"):
            value = getattr(protocol, name)
            with pytest.raises(TypeError):
                delattr(protocol, name)
            setattr(protocol, name, value)
        protocol._outgoing_high_water = 10**40
        assert protocol._outgoing_high_water == sys.maxsize
        protocol._outgoing_low_water = 2.5
        assert protocol._outgoing_low_water == 2
        for junk in ("text", None):
            with pytest.raises((TypeError, ValueError)):
                protocol._incoming_high_water = junk
        with pytest.raises(AttributeError):
            protocol._state = 5
        with pytest.raises(TypeError):
            protocol._loop = None
        with pytest.raises(TypeError):
            protocol._write_backlog = 5
        protocol._write_backlog = (b"a", b"b")
        assert protocol._write_backlog == [b"a", b"b"]
        protocol.get_buffer(-1)[:3] = b"abc"
        protocol.buffer_updated(0)
        with pytest.raises(TypeError):
            protocol.buffer_updated("x")

    loop.run_until_complete(main())


@pytest.mark.parametrize("kind", [_core.TlsProtocol, tls.TlsProtocol])
def test_never_initialised(kind):
    protocol = kind.__new__(kind)
    gc.collect()
    protocol._settle()
    protocol.buffer_updated(5)
    assert len(protocol.get_buffer(-1)) > 1000
    protocol._do_read()
    protocol._write_appdata([b"x"])
    with pytest.raises(AttributeError):
        protocol.buffer_updated(5)
    for method in ("_process_outgoing", "_control_app_writing", "_control_ssl_reading"):
        with pytest.raises(AttributeError):
            getattr(protocol, method)()
    protocol._state = sslproto.SSLProtocolState.WRAPPED
    protocol._write_backlog = [b"x", b"y"]
    for method in ("_do_read", "_do_write"):
        with pytest.raises(AttributeError):
            getattr(protocol, method)()
    with pytest.raises(AttributeError):
        protocol._write_appdata([b"x"])
    transport = tls.SSLTransport.__new__(tls.SSLTransport)
    transport._closed = True
    with pytest.raises(AttributeError):
        transport.write(b"x")
    transport.write(b"")


def test_a_protocol_that_refers_to_itself_is_collected(loop):
    async def main():
        protocol = new_protocol(loop)
        protocol._app_transport._closed = True
        protocol._app_protocol.cycle = protocol
        protocol._write_backlog.append(protocol)
        return weakref.ref(protocol)

    reference = loop.run_until_complete(main())
    gc.collect()
    assert reference() is None


def test_only_on_a_loop_of_ours():
    loop = asyncio.SelectorEventLoop()
    with pytest.raises(TypeError, match=r"ouroloop\.Loop is needed"):
        tls.TlsProtocol(loop, None, client_context(), None, server_hostname=HOST)
    loop.close()
    gc.collect()


def test_memory_of_an_idle_connection(loop):
    """No buffer of its own; asyncio's has 256 KiB."""

    async def main():
        async with client_and_peer() as (transport, _, peer):
            transport.write(b"x" * 1000)
            assert await peer.read(1000)
            protocol = transport._ssl_protocol
            held = [sys.getsizeof(thing) for thing in gc.get_referents(protocol)]
            held.append(sys.getsizeof(protocol))
            assert sum(size for size in held if size < 1 << 30) < 16 * 1024

    loop.run_until_complete(main())


def test_class_of_the_protocol_is_the_only_difference_of_start_tls():
    ours, stock = tls.start_tls, asyncio.BaseEventLoop.start_tls
    assert ours.__code__ is stock.__code__
    assert ours.__kwdefaults__ == stock.__kwdefaults__
    assert ours.__globals__["sslproto"].SSLProtocol is tls.TlsProtocol
    assert stock.__globals__["sslproto"] is sslproto


def test_transport_warns_when_forgotten(loop):
    async def main():
        async with client_and_peer() as (transport, _, _):
            await turns()
        transport._closed = False
        del transport
        await turns()

    def forget():
        loop.run_until_complete(main())
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed transport"):
        forget()
