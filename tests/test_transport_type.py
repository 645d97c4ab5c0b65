"""csrc/transport_type.c: methods and attributes that all transports have."""

import asyncio
import inspect
import weakref

import pytest
from network import Recorder, connected, turns, until
from ouroloop import _core


def test_it_is_asyncios(loop):
    assert issubclass(_core.StreamTransport, asyncio.Transport)
    assert issubclass(_core.StreamTransport, asyncio.transports._FlowControlMixin)


def test_only_the_loop_makes_one():
    for kind in (_core.StreamTransport, *_core.StreamTransport.__mro__[1:2]):
        with pytest.raises(TypeError, match=r"cannot create '.*Transport' instances"):
            kind()
    with pytest.raises(TypeError):
        type("Mine", (_core.StreamTransport,), {})
    mine = type("Mine", (_core.StreamTransport.__base__,), {})
    with pytest.raises(TypeError):
        mine()
    with pytest.raises(TypeError):
        object.__new__(_core.StreamTransport)


def test_every_public_method_of_asyncios_is_there_and_documented():
    for name, stock in inspect.getmembers(asyncio.Transport, inspect.isfunction):
        if name.startswith("_"):
            continue
        ours = getattr(_core.StreamTransport, name)
        assert inspect.ismethoddescriptor(ours), name
        assert ours.__doc__, name
        mine = list(inspect.signature(ours).parameters)
        assert mine == list(inspect.signature(stock).parameters), name


def test_repr(loop):
    async def main():
        async with connected() as (transport, _):
            fd = transport._sock_fd
            assert repr(transport) == (
                f"<StreamTransport fd={fd} read=polling write=<idle, bufsize=0>>"
            )
            transport.pause_reading()
            while not transport.get_write_buffer_size():
                transport.write(b"x" * 100_000)
            size = transport.get_write_buffer_size()
            text = f"fd={fd} read=idle write=<polling, bufsize={size}>>"
            assert repr(transport) == f"<StreamTransport {text}"
            transport.close()
            assert repr(transport) == f"<StreamTransport closing {text}"
            transport.abort()
            await turns()
            assert repr(transport) == f"<StreamTransport closed fd={fd}>"

    loop.run_until_complete(main())


def test_attributes_that_others_read(loop):
    async def main():
        async with connected() as (transport, _):
            protocol = transport.get_protocol()
            assert transport._loop is loop
            assert transport._protocol is protocol
            assert transport._sock.fileno() == transport._sock_fd
            assert transport._server is transport._empty_waiter is None
            assert transport._conn_lost == 0
            for name in ("_closing", "_paused", "_eof", "_protocol_paused"):
                assert getattr(transport, name) is False
            assert (transport._low_water, transport._high_water) == (16384, 65536)
            assert transport._start_tls_compatible is True
            assert transport._sendfile_compatible is asyncio.constants._SendfileMode.TRY_NATIVE
            assert set(transport._extra) == {"socket", "sockname", "peername"}
            with pytest.raises(AttributeError):
                transport._loop = None
            transport.pause_reading()
            assert transport._paused is True
            transport.close()
            assert transport._closing is True
            assert transport._conn_lost == 1

    loop.run_until_complete(main())


def test_pause_and_resume_reading(loop):
    async def main():
        async with connected() as (transport, peer):
            protocol = transport.get_protocol()
            assert transport.is_reading()
            transport.pause_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            peer.send(b"x")
            await turns(10)
            assert protocol.data == b""
            transport.resume_reading()
            transport.resume_reading()
            assert transport.is_reading()
            await until(lambda: protocol.data == b"x")
            transport.close()
            assert not transport.is_reading()

    loop.run_until_complete(main())


def test_protocols_are_replaced(loop):
    async def main():
        async with connected() as (transport, peer):
            first, second, third = transport.get_protocol(), Recorder(), Recorder()
            transport.set_protocol(second)
            assert transport.get_protocol() is second
            peer.send(b"x")
            await until(lambda: second.data == b"x")
            transport._protocol = third
            assert transport.get_protocol() is third
            transport.close()
            await third.lost
            assert (first.calls, second.calls, third.calls) == (["made"], ["data"], ["lost"])

    loop.run_until_complete(main())


def test_get_extra_info(loop):
    async def main():
        async with connected(extra={"mine": 1}) as (transport, _):
            get = transport.get_extra_info
            assert get("mine") == get(name="mine", default=2) == 1
            assert get("absent") is None
            assert get("absent", 3) == get("absent", default=3) == 3
            assert get(("not", "a", "string")) is None
            with pytest.raises(TypeError):
                get()
            with pytest.raises(TypeError):
                get("a", "b", "c")

    loop.run_until_complete(main())


def test_wrong_arguments(loop):
    async def main():
        async with connected() as (transport, _):
            for call in (
                lambda: transport.close(1),
                lambda: transport.set_protocol(),
                lambda: transport.set_write_buffer_limits(1, 2, 3),
                lambda: transport.set_write_buffer_limits(medium=1),
                lambda: transport._fatal_error(),
                lambda: transport._force_close(),
            ):
                with pytest.raises(TypeError):
                    call()
            assert not transport.is_closing()

    loop.run_until_complete(main())


def test_weak_references_to_one(loop):
    called = []

    async def main():
        async with connected() as (transport, _):
            reference = weakref.ref(transport, called.append)
        del transport
        await turns()
        assert reference() is None
        assert called == [reference]

    loop.run_until_complete(main())
