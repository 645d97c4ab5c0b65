"""What sendto() takes, what waits when the kernel takes no more, and what the end does to it."""

import asyncio
import contextlib
import os
import socket
import sys
import tempfile

import pytest
from network import until
from outcome import AwaitedCases, on_both
from udp_peers import Peer, clogged, endpoint, nobody, plain

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = AwaitedCases()
case = CASES.awaited

EMPTY_IS_SENT = sys.version_info >= (3, 13)


# --- what may be sent


@case(
    b"bytes",
    bytearray(b"bytearray"),
    memoryview(b"memoryview"),
    memoryview(b"with a step")[::2],
    memoryview(bytearray(b"4 bytes each")).cast("I"),
    b"",
    bytearray(),
    memoryview(b""),
    type("Bytes", (bytes,), {})(b"subclass"),
    "text",
    5,
    None,
    [b"x"],
)
async def data_of_type(loop, data):
    with plain() as sock:
        async with endpoint(remote_addr=sock.getsockname()) as (transport, protocol):
            transport.sendto(data)
            transport.sendto(b"end")
            got = []
            if not transport.is_closing():
                while b"end" not in got:
                    got.append(sock.recv(100))
            return got, protocol.log


@case()
async def sendto_arguments(loop):
    async with endpoint() as (transport, _):
        texts = []
        for arguments, keywords in (
            ((), {}),
            ((b"x", None, 3), {}),
            ((b"x",), {"address": 5}),
            ((), {"addr": None}),
        ):
            with pytest.raises(TypeError) as caught:
                transport.sendto(*arguments, **keywords)
            texts.append(caught.type)
        transport.sendto(data=b"x", addr=nobody())
        return texts


@case()
async def data_that_waits_is_copied(loop):
    async with clogged() as (transport, _, drain):
        data = bytearray(b"before")
        transport.sendto(data)
        transport.sendto(memoryview(b"123456")[::2])
        data[:] = b"after "
        data.clear()
        got = []
        while len(got) < 2:
            got += drain()
            await asyncio.sleep(0.001)
        return got, transport.get_write_buffer_size() if sys.version_info[:2] != (3, 13) else 0


@case()
async def sent_in_connection_made(loop):
    with plain() as sock:

        class Sends(Peer):
            def connection_made(self, transport):
                transport.sendto(b"first")

        async with endpoint(Sends, remote_addr=sock.getsockname()):
            return sock.recv(10)


# --- flow control


@case()
async def flow_control(loop):
    async with clogged() as (transport, protocol, drain):
        before = transport.get_write_buffer_size()
        transport.set_write_buffer_limits(high=before + 100, low=50)
        for _ in range(20):
            transport.sendto(b"0123456789")
        log = list(protocol.log)
        size = transport.get_write_buffer_size()
        got = []
        while len(got) < 20:
            got += drain()
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
        # 3.13.0 forgets to take the headers off again, and never resumes.
        end = (protocol.log, transport.get_write_buffer_size())
        return log, size, len(got), end if sys.version_info[:2] != (3, 13) else None


@case("sendto", "raise")
async def in_resume_writing(loop, action):
    class Acts(Peer):
        def resume_writing(self):
            super().resume_writing()
            if action == "raise":
                raise ZeroDivisionError("in resume_writing")
            self.transport.sendto(b"more")

    if sys.version_info[:2] == (3, 13):
        return "never called on 3.13.0"
    async with clogged(Acts) as (transport, protocol, drain):
        transport.set_write_buffer_limits(high=0)
        got = []
        while ("resume",) not in protocol.log:
            got += drain()
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.005)
        return got + drain(), protocol.log, transport.is_closing()


@case()
async def the_receiver_of_what_waits_is_gone(loop):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "receiver")
        with plain(socket.AF_UNIX, path):
            transport, protocol = await loop.create_datagram_endpoint(
                Peer, family=socket.AF_UNIX, remote_addr=path
            )
            while transport.get_write_buffer_size() == 0:
                transport.sendto(b"filler")
            for n in range(3):
                transport.sendto(b"%d" % n)
        await until(lambda: len(protocol.log) == 5)
        await asyncio.sleep(0.01)
        log = list(protocol.log)
        transport.close()
        await asyncio.sleep(0.01)
        return log, protocol.log, transport.is_closing()


# --- the end


@case()
async def close_sends_what_waits(loop):
    async with clogged() as (transport, protocol, drain):
        transport.set_write_buffer_limits(high=0)
        transport.sendto(b"last")
        transport.close()
        transport.close()
        log = [list(protocol.log), transport.is_closing()]
        got = []
        while not protocol.lost.done():
            got += drain()
            await asyncio.sleep(0.001)
        # 3.13.0 has never taken the headers off.
        return got, log, protocol.log if sys.version_info[:2] != (3, 13) else None


@case()
async def abort_drops_what_waits(loop):
    async with clogged() as (transport, protocol, drain):
        transport.set_write_buffer_limits(high=0)
        transport.sendto(b"last")
        transport.abort()
        transport.abort()
        await protocol.lost
        return drain(), protocol.log, transport.is_closing()


@case("close", "abort")
async def sendto_after(loop, action):
    with plain() as sock:
        async with endpoint(remote_addr=sock.getsockname()) as (transport, protocol):
            getattr(transport, action)()
            for _ in range(8):
                transport.sendto(b"late")
            await protocol.lost
            await asyncio.sleep(0)
            for _ in range(3):
                transport.sendto(b"later")
            with contextlib.suppress(BlockingIOError):
                sock.setblocking(False)
                return sock.recv(10)
            return protocol.log, transport._conn_lost


@case("close", "abort")
async def sendto_without_remote_address_after(loop, action):
    with plain() as sock:
        async with endpoint() as (transport, protocol):
            getattr(transport, action)()
            transport.sendto(b"late", sock.getsockname())
            await protocol.lost
            await asyncio.sleep(0)
            got = sock.recv(10)
            try:
                transport.sendto(b"later", sock.getsockname())
            except AttributeError as error:
                return got, str(error), protocol.log


@case("close", "abort")
async def closed_by_connection_made(loop, action):
    class Closes(Peer):
        def connection_made(self, transport):
            super().connection_made(transport)
            getattr(transport, action)()

    transport, protocol = await loop.create_datagram_endpoint(Closes, local_addr=("127.0.0.1", 0))
    await protocol.lost
    return protocol.log, transport.is_closing()


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, debug):
    stock, ours = on_both(case, debug=debug)
    assert ours.lines() == stock.lines()


# --- what the cases cannot see


def test_headers_are_taken_off_again(loop):
    async def main():
        async with clogged() as (transport, protocol, drain):
            waiting = transport.get_write_buffer_size()
            header = 8 if EMPTY_IS_SENT else 0
            assert waiting == len(b"filler") + header
            transport.sendto(b"12")
            assert transport.get_write_buffer_size() == waiting + 2 + header
            transport.set_write_buffer_limits(high=5)
            assert protocol.log == [("made",), ("pause",)]
            got = []
            while not got:
                got += drain()
                await asyncio.sleep(0.001)
            assert got == [b"12"]
            assert transport.get_write_buffer_size() == 0
            assert protocol.log == [("made",), ("pause",), ("resume",)]

    loop.run_until_complete(main())


@pytest.mark.parametrize("action", ["close", "abort"])
def test_end_in_resume_writing(loop, action):
    # asyncio calls connection_lost() twice then and reports its own AttributeError.
    class Ends(Peer):
        def resume_writing(self):
            super().resume_writing()
            getattr(self.transport, action)()

    async def main():
        async with clogged(Ends) as (transport, protocol, drain):
            transport.set_write_buffer_limits(high=0)
            while not protocol.lost.done():
                drain()
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)
            assert protocol.log == [("made",), ("pause",), ("resume",), ("lost", "NoneType")]
            transport.close()
            transport.abort()

    loop.run_until_complete(main())


def test_lost_datagrams_are_logged(loop, caplog):
    async def main():
        async with endpoint(remote_addr=nobody()) as (transport, protocol):
            transport.close()
            for _ in range(6):
                transport.sendto(b"x")
            await protocol.lost

    loop.run_until_complete(main())
    assert [r.getMessage() for r in caplog.records] == ["socket.send() raised exception."] * 2
