"""csrc/tls_write.c: what TLS connections send, record by record, and their flow control."""

import asyncio
import contextlib
import math
import socket
import struct
import sys

import pytest
from network import Recorder, turns, until
from test_tls import client_and_peer
from tls_peer import HOST, client_context, new_design, server_context


async def next_records(peer, count):
    """The sizes of the next records, of what arrives by one recv()."""
    data = await asyncio.wait_for(peer.loop.sock_recv(peer.sock, 1 << 20), 5)
    peer.incoming.write(data)
    sizes = []
    while data:
        _, _, size = struct.unpack(">BHH", data[:5])
        sizes.append(size)
        data = data[5 + size :]
    assert len(sizes) == count, sizes
    return sizes


OVERHEAD = 17  # of TLS 1.3: the type of the content, and its tag
HEADER = 0x100  # OpenSSL's SSL3_RT_HEADER, to a message callback


@new_design
def test_writes_of_one_callback_are_one_record(loop):
    async def main():
        async with client_and_peer() as (transport, _, peer):
            transport.write(data=b"one,")
            with pytest.raises(TypeError, match="argument"):
                transport.write()
            transport.write(bytearray(b"two,"))
            transport.writelines([memoryview(b"three,"), b"", b"four"])
            await turns()
            assert await next_records(peer, 1) == [18 + OVERHEAD]
            assert await peer.read(18) == b"one,two,three,four"
            # From a plain callback, and from a protocol's, it is the same.
            loop.call_soon(lambda: [transport.write(b"x"), transport.write(b"y")])
            await turns()
            assert await next_records(peer, 1) == [2 + OVERHEAD]
            assert await peer.read(2) == b"xy"

    loop.run_until_complete(main())


def test_answers_in_the_protocols_own_callback(loop):
    class Echo(Recorder):
        def data_received(self, data):
            for n in range(len(data)):
                self.transport.write(data[n : n + 1])

    async def main():
        async with client_and_peer(Echo) as (_, _, peer):
            await peer.send(b"0123456789")
            assert await peer.read(10) == b"0123456789"

    loop.run_until_complete(main())


SIZES = [[1], [16384], [16385], [5, 70000, 5], [40000, 40000], [20] * 5000, [300000, 1, 2]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_all_arrives_in_order(loop, sizes):
    sizes = [size for size in sizes]
    pieces = [bytes([n % 251]) * size for n, size in enumerate(sizes)]

    async def main():
        async with client_and_peer() as (transport, _, peer):
            for piece in pieces:
                transport.write(piece)
            assert await peer.read(sum(sizes)) == b"".join(pieces)
            transport.writelines(pieces)
            assert await peer.read(sum(sizes)) == b"".join(pieces)

    loop.run_until_complete(main())


class InTheMiddle:
    """Once `use` is set, calls it while the tenth record from then on is encrypted."""

    use = None
    records = 0

    def __call__(self, connection, direction, version, content_type, message_type, data):
        if self.use is not None and direction == "write" and content_type == HEADER:
            self.records += 1
            if self.records == 10:
                self.use()


@new_design
def test_one_write_is_sent_at_once(loop):
    """Nothing is sent before all is encrypted: each system call may wake the peer."""

    async def main():
        middle = InTheMiddle()
        async with client_and_peer(_msg_callback=middle) as (transport, _, peer):

            def look():
                with pytest.raises(BlockingIOError):
                    peer.sock.recv(1, socket.MSG_PEEK)
                looked.append(True)

            looked = []
            middle.use = look
            data = bytes(range(250)) * 800
            transport.write(data)
            assert looked
            assert await peer.read(len(data)) == data

    loop.run_until_complete(main())


@new_design
@pytest.mark.parametrize("end", ["abort", "close", "exception"])
def test_the_connection_ends_while_it_encrypts(loop, reports, end):
    """What is encrypted by then is sent or dropped, and nothing waits for the rest."""

    async def main():
        middle = InTheMiddle()
        async with client_and_peer(_msg_callback=middle) as (transport, protocol, peer):
            below = transport._ssl_protocol._transport
            middle.use = (lambda: 1 / 0) if end == "exception" else getattr(below, end)
            transport.write(bytes(200_000))
            exc = await asyncio.wait_for(protocol.lost, 5)
            assert type(exc) is (ZeroDivisionError if end == "exception" else type(None))
            size = 0
            with contextlib.suppress(ConnectionResetError):
                while data := await asyncio.wait_for(loop.sock_recv(peer.sock, 1 << 20), 5):
                    size += len(data)
            assert size < 200_000

    loop.run_until_complete(main())
    if end == "exception":
        (report,) = reports.take()
        assert report["message"] == "Fatal error on SSL protocol"


def test_what_is_written_may_change_afterwards(loop):
    async def main():
        async with client_and_peer() as (transport, _, peer):
            data = bytearray(b"before")
            transport.write(data)
            data[:] = b"AFTER!"
            transport.write(memoryview(data)[2:4])
            data.clear()
            assert await peer.read(8) == b"beforeTE"

    loop.run_until_complete(main())


@new_design
def test_written_before_the_handshake_is_over(loop):
    """A server's protocol has no transport then, but who makes the connection may have."""

    async def main():
        accepted = []

        class Keeps(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                accepted.append(self)

        server = await loop.create_server(Keeps, "127.0.0.1", 0, ssl=server_context())
        sock = socket.create_connection(server.sockets[0].getsockname())
        sock.setblocking(False)
        protocol = Recorder()
        waiter = loop.create_future()
        transport = loop._make_ssl_transport(
            sock, protocol, client_context(), waiter, server_hostname=HOST
        )
        await asyncio.sleep(0)
        transport.write(b"early ")
        transport.write(b"bird")
        await waiter
        await until(lambda: accepted and accepted[0].data == b"early bird")
        transport.close()
        await protocol.lost
        await accepted[0].lost
        server.close()
        await turns()

    loop.run_until_complete(main())


@new_design
def test_limits_of_any_number(loop):
    async def main():
        async with client_and_peer() as (transport, _, _):
            get, set_limits = transport.get_write_buffer_limits, transport.set_write_buffer_limits
            set_limits(high=1000.5)
            assert get() == (250, 1000)
            set_limits(math.inf, 10)
            assert get() == (10, sys.maxsize)

    loop.run_until_complete(main())


@new_design
def test_flow_control(loop):
    """The application is paused once the transport below is full and TLS holds 512 KiB more."""

    async def main():
        async with client_and_peer() as (transport, protocol, peer):
            assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
            block = bytes(64 * 1024)
            sent = 0
            while "pause" not in protocol.calls:
                transport.write(block)
                sent += len(block)
                assert sent < 100_000_000
            assert transport.get_write_buffer_size() >= 512 * 1024
            assert transport._protocol_paused
            received = 0
            while received < sent:
                received += len(await peer.read(min(1 << 20, sent - received)))
            await until(lambda: "resume" in protocol.calls)
            assert protocol.calls.count("pause") == protocol.calls.count("resume")
            assert transport.get_write_buffer_size() == 0

    loop.run_until_complete(main())


@new_design
def test_large_writes_after_a_slow_peer(loop):
    """They are encrypted in larger parts then."""
    block = bytes(range(250)) * 4_000

    async def main():
        async with client_and_peer() as (transport, protocol, peer):
            count = 0
            while "pause" not in protocol.calls:
                transport.write(block)
                count += 1
            for _ in range(count):
                assert await peer.read(len(block)) == block
            await until(lambda: "resume" in protocol.calls)
            transport.write(block)
            transport.write(block[:300_000])
            assert await peer.read(len(block)) == block
            assert await peer.read(300_000) == block[:300_000]

    loop.run_until_complete(main())


@new_design
def test_no_high_water_means_paused_at_once(loop):
    async def main():
        async with client_and_peer() as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=0)
            assert protocol.calls[-1] == "pause"
            transport.write(b"a")
            assert protocol.calls[-1] == "resume"
            transport.write(b"b")
            assert protocol.calls[-1] == "pause"
            assert await peer.read(2) == b"ab"

    loop.run_until_complete(main())


@new_design
@pytest.mark.parametrize("method", ["write", "close", "abort", "set_protocol", "pause_reading"])
@pytest.mark.parametrize("event", ["pause_writing", "resume_writing"])
def test_anything_from_flow_control(loop, event, method):
    """The transport is used again while it still works at the last write."""
    arguments = {"write": [b"more"], "set_protocol": [None]}

    async def main():
        async with client_and_peer() as (transport, protocol, peer):
            used = []

            def use():
                if not used:
                    used.append(True)
                    given = arguments.get(method, [])
                    getattr(transport, method)(*([protocol] if given == [None] else given))

            setattr(protocol, event, use)
            transport.set_write_buffer_limits(high=200_000)
            sent = 0
            while transport.get_write_buffer_size() < 200_000 and not transport.is_closing():
                transport.write(bytes(50_000))
                sent += 50_000
            if event == "pause_writing" and method == "write":
                sent += 4
            elif method == "write":
                sent += 4
            received = 0
            with contextlib.suppress(OSError):
                while received < sent:
                    piece = await peer.read(min(1 << 20, sent - received))
                    if not piece:
                        break
                    received += len(piece)
            if method not in ("abort", "close"):
                assert received == sent
            elif method == "close":
                assert received == sent, "what was written before close() arrives"
            assert used

    loop.run_until_complete(main())


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
def test_flow_control_that_fails_is_reported(loop, reports, method):
    async def main():
        async with client_and_peer() as (transport, protocol, peer):
            setattr(protocol, method, lambda: 1 / 0)
            transport.set_write_buffer_limits(high=100_000, low=10_000)
            sent = 0
            while not (reports or transport._protocol_paused):
                transport.write(bytes(50_000))
                sent += 50_000
                await asyncio.sleep(0)
            received = 0
            while received < sent:
                received += len(await peer.read(min(1 << 20, sent - received)))
            await until(lambda: bool(reports))

    loop.run_until_complete(main())
    (report,) = reports.take()
    assert report["message"] == f"protocol.{method}() failed"
    assert type(report["exception"]) is ZeroDivisionError


def test_close_sends_what_was_written(loop):
    async def main():
        async with client_and_peer() as (transport, protocol, peer):
            transport.write(b"first ")
            transport.write(b"last")
            transport.close()
            transport.write(b"too late")
            assert transport.is_closing()
            assert await peer.read(100) == b"first last"
            await peer.close()
            assert await protocol.lost is None

    loop.run_until_complete(main())


@new_design
def test_abort_sends_what_was_written(loop):
    """As on asyncio, where write() has put it into the kernel by then."""

    async def main():
        async with client_and_peer() as (transport, protocol, peer):
            transport.write(b"on its way")
            transport.abort()
            assert await protocol.lost is None
            assert await peer.read(10) == b"on its way"

    loop.run_until_complete(main())


@new_design
def test_the_transport_below_closes_in_the_same_callback(loop):
    async def main():
        async with client_and_peer() as (transport, protocol, peer):
            transport.write(b"on its way")
            transport._ssl_protocol._transport.close()
            assert await peer.read(10) == b"on its way"
            await protocol.lost

    loop.run_until_complete(main())


@new_design
def test_a_replaced_write_below_is_called(loop):
    async def main():
        async with client_and_peer() as (transport, _, peer):
            below = transport._ssl_protocol._transport
            seen = []
            below.write = lambda data: [seen.append(len(data)), type(below).write(below, data)]
            transport.write(b"0123456789")
            assert await peer.read(10) == b"0123456789"
            assert seen == [10 + 5 + OVERHEAD]

    loop.run_until_complete(main())


def test_sendfile_goes_through_tls(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)

    async def main():
        async with client_and_peer() as (transport, _, peer):
            with path.open("rb") as file:
                sending = loop.create_task(loop.sendfile(transport, file, 10, 200_000))
                assert await peer.read(200_000) == path.read_bytes()[10:200_010]
                assert await sending == 200_000

    loop.run_until_complete(main())


@new_design
def test_stream_writer_start_tls(loop):
    async def main():
        done = loop.create_future()

        async def serve(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"go\n")
            await writer.drain()
            await writer.start_tls(server_context())
            writer.write(b"hello " + await reader.readline())
            await writer.drain()
            writer.close()
            done.set_result(None)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        await writer.start_tls(client_context(), server_hostname=HOST)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.write(b"world\n")
        assert await reader.read() == b"hello world\n"
        writer.close()
        await writer.wait_closed()
        await done
        server.close()
        await turns(5)

    loop.run_until_complete(main())
