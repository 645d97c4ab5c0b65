"""csrc/stream_write.c: what is written, held back, sent and waited for."""

import asyncio
import socket
import sys
import threading

import pytest
from network import TIMEOUT, Recorder, connected, read_all, turns, until


def messages(peer):
    """Each call that sent something, as one message; for SOCK_SEQPACKET."""
    found = []
    while True:
        try:
            message = peer.recv(1 << 20)
        except BlockingIOError:
            return found
        found.append(message)


def packets(**options):
    return connected(kind=socket.SOCK_SEQPACKET, **options)


def test_the_writes_of_a_task_step_are_sent_together(loop):
    async def main():
        async with packets() as (transport, peer):
            transport.write(b"one ")
            transport.write(bytearray(b"two "))
            transport.writelines([b"three ", b"", memoryview(b"four")])
            assert messages(peer) == []
            await asyncio.sleep(0)
            assert messages(peer) == [b"one two three four"]
            transport.write(b"five")
            await asyncio.sleep(0)
            assert messages(peer) == [b"five"]

    loop.run_until_complete(main())


def test_so_are_those_of_a_protocols_callback(loop):
    class Protocol(Recorder):
        def data_received(self, data):
            for piece in data.split():
                self.transport.write(piece)

    async def main():
        async with packets(protocol_factory=Protocol) as (_, peer):
            peer.send(b"a b c")
            await turns()
            assert messages(peer) == [b"abc"]

    loop.run_until_complete(main())


@pytest.mark.parametrize("way", ["call_soon", "call_later", "add_reader", "future", "made"])
def test_and_those_of_every_other_callback(loop, way):
    async def main():
        def write():
            for piece in b"a", b"b", b"c":
                transport.write(piece)

        class Protocol(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                if way == "made":
                    for piece in b"a", b"b", b"c":
                        transport.write(piece)

        async with packets(protocol_factory=Protocol) as (transport, peer):
            if way == "call_soon":
                loop.call_soon(write)
            elif way == "call_later":
                loop.call_later(0, write)
            elif way == "add_reader":
                a, b = socket.socketpair()
                with a, b:
                    loop.add_reader(a, lambda: (write(), loop.remove_reader(a)))
                    b.send(b"x")
                    await turns()
            elif way == "future":
                future = loop.create_future()
                future.add_done_callback(lambda future: write())
                future.set_result(None)
            await turns()
            assert messages(peer) == [b"abc"]

    loop.run_until_complete(main())


def test_an_exception_does_not_hold_it_back(loop, reports):
    async def main():
        async with packets() as (transport, peer):

            def write():
                transport.write(b"x")
                raise ZeroDivisionError

            loop.call_soon(write)
            await turns(1)
            assert messages(peer) == [b"x"]
            assert len(reports.take()) == 1

    loop.run_until_complete(main())


def test_nor_does_leaving_the_loop(loop):
    async def main():
        async with packets() as (transport, peer):

            def write():
                transport.write(b"x")
                raise KeyboardInterrupt

            loop.call_soon(write)
            await done
            assert messages(peer) == [b"x"]

    done = loop.create_future()
    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    done.set_result(None)
    loop.run_until_complete(task)


def test_outside_of_the_loop_it_is_sent_at_once(loop):
    a, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    a.setblocking(False)
    peer.setblocking(False)

    async def make():
        return loop._make_socket_transport(a, Recorder())

    with peer:
        transport = loop.run_until_complete(make())
        transport.write(b"one")
        transport.write(b"two")
        assert messages(peer) == [b"one", b"two"]
        transport.close()


def test_in_a_signal_handler_too(loop):
    """It runs in the poll: nothing would send it before the next event."""
    import signal

    async def main():
        async with connected() as (transport, peer):
            before = signal.signal(signal.SIGUSR1, lambda *_: transport.write(b"x"))
            timer = threading.Timer(0.05, signal.raise_signal, [signal.SIGUSR1])
            timer.start()
            try:
                assert await read_all(peer, 1) == b"x"
            finally:
                timer.join()
                signal.signal(signal.SIGUSR1, before)

    loop.run_until_complete(main())


def test_and_in_another_thread(loop):
    """Wrong, but on asyncio it works while the loop sleeps, and programs do it."""

    async def main():
        async with connected() as (transport, peer):
            thread = threading.Timer(0.05, transport.write, [b"x"])
            thread.start()
            assert await read_all(peer, 1) == b"x"
            thread.join()

    loop.run_until_complete(main())


def test_much_is_sent_at_once(loop):
    async def main():
        async with packets() as (transport, peer):
            transport.write(b"x" * 65536)
            assert messages(peer) == []
            transport.write(b"x")
            assert messages(peer) == [b"x" * 65537]
            transport.set_write_buffer_limits(high=100)
            transport.write(b"x" * 100)
            assert messages(peer) == []
            transport.write(b"y")
            assert messages(peer) == [b"x" * 100 + b"y"]
            transport.set_write_buffer_limits(high=0)
            transport.write(b"x")
            assert messages(peer) == [b"x"]

    loop.run_until_complete(main())


def test_the_size_is_what_the_kernel_has_not_taken(loop):
    async def main():
        async with packets() as (transport, peer):
            transport.write(b"x" * 100)
            assert transport.get_write_buffer_size() == 0
            assert messages(peer) == [b"x" * 100]
        async with connected() as (transport, peer):
            transport.write(b"x" * 10_000_000)
            size = transport.get_write_buffer_size()
            assert 0 < size < 10_000_000
            transport.write(b"y" * 5)
            assert transport.get_write_buffer_size() == size + 5
            assert transport.get_protocol().calls == ["made", "pause"]

    loop.run_until_complete(main())


def test_order_and_content(loop):
    """Pieces of all sizes and kinds, through a connection that is often full."""

    async def main():
        async with connected() as (transport, peer):
            expected = bytearray()

            async def write():
                for number in range(2000):
                    piece = b"%d," % number * (number % 97)
                    expected.extend(piece)
                    if number % 3 == 0:
                        transport.write(piece)
                    elif number % 3 == 1:
                        changing = bytearray(piece)
                        transport.write(changing)
                        changing[:] = b"?" * len(changing)
                    else:
                        transport.writelines([piece[:5], memoryview(piece)[5:]])
                    if number % 50 == 0:
                        await asyncio.sleep(0)
                transport.close()

            task = loop.create_task(write())
            received = await read_all(peer)
            await task
            assert received == expected

    loop.run_until_complete(main())


def test_many_small_pieces_while_the_peer_does_not_read(loop):
    async def main():
        async with connected() as (transport, peer):
            expected = b"".join(b"%d " % number for number in range(100_000))
            for number in range(100_000):
                transport.write(b"%d " % number)
            assert transport.get_write_buffer_size() > 0
            assert await read_all(peer, len(expected)) == expected
            await until(lambda: transport.get_write_buffer_size() == 0)

    loop.run_until_complete(main())


def test_other_buffers(loop):
    async def main():
        async with connected() as (transport, peer):
            import array

            view = memoryview(array.array("i", [1, 2, 3]))
            transport.write(view)
            assert await read_all(peer, 12) == view.tobytes()

            class Bytes(bytes):
                pass

            transport.write(Bytes(b"sub"))
            assert await read_all(peer, 3) == b"sub"

    loop.run_until_complete(main())


def test_empty_writes(loop):
    async def main():
        async with packets() as (transport, peer):
            for nothing in (b"", bytearray(), memoryview(b"")):
                transport.write(nothing)
            transport.writelines([])
            transport.writelines([b"", b""])
            await turns()
            assert messages(peer) == []

    loop.run_until_complete(main())


def test_a_broken_connection(loop):
    async def main():
        async with connected() as (transport, peer):
            protocol = transport.get_protocol()
            transport.pause_reading()
            peer.close()
            transport.write(b"x")
            assert not transport.is_closing()
            error = await protocol.lost
            assert isinstance(error, BrokenPipeError)
            assert protocol.calls == ["made", "lost"]

    loop.run_until_complete(main())


def test_a_connection_that_breaks_while_it_is_full(loop):
    async def main():
        async with connected() as (transport, peer):
            protocol = transport.get_protocol()
            transport.write(b"x" * 10_000_000)
            await turns()
            peer.close()
            assert isinstance(await protocol.lost, (BrokenPipeError, ConnectionResetError))
            assert transport.get_write_buffer_size() == 0

    loop.run_until_complete(main())


def test_writing_on_after_the_end_is_logged(loop, caplog):
    async def main():
        async with connected() as (transport, _):
            transport.abort()
            for _ in range(4):
                transport.write(b"x")
            assert caplog.messages == []
            transport.write(b"x")
            transport.writelines([b"x"])
            assert caplog.messages == ["socket.send() raised exception."] * 2

    loop.run_until_complete(main())


def test_resume_writing_may_write_until_the_end(loop):
    """Also on a transport that is closing, as asyncio's TLS does."""

    class Protocol(Recorder):
        def resume_writing(self):
            super().resume_writing()
            self.transport.write(b"end")

    async def main():
        for close in (False, True):
            async with connected(Protocol) as (transport, peer):
                protocol = transport.get_protocol()
                transport.write(b"x" * 1_000_000)
                if close:
                    transport.close()
                assert await read_all(peer, 1_000_003) == b"x" * 1_000_000 + b"end"
                assert protocol.calls[:3] == ["made", "pause", "resume"]
                if not close:
                    transport.close()
                assert await protocol.lost is None

    loop.run_until_complete(main())


@pytest.mark.parametrize("then", ["nothing", "size", "abort"])
@pytest.mark.parametrize("size", [3, 100_000])
def test_connection_lost_is_not_called_within_resume_writing(loop, size, then):
    """Even when all that a closing transport had to send is sent there."""

    class Protocol(Recorder):
        def resume_writing(self):
            self.transport.write(b"x" * size)
            if then == "size":
                assert self.transport.get_write_buffer_size() < 1_000_000
            elif then == "abort":
                self.transport.abort()
            super().resume_writing()

    async def main():
        async with connected(Protocol) as (transport, peer):
            protocol = transport.get_protocol()
            transport.write(b"x" * 1_000_000)
            transport.close()
            assert len(await read_all(peer)) == 1_000_000 + size
            assert await asyncio.wait_for(protocol.lost, TIMEOUT) is None
            assert protocol.calls == ["made", "pause", "resume", "lost"]

    loop.run_until_complete(main())


def test_eof(loop):
    async def main():
        for size in (5, 1_000_000):
            async with connected() as (transport, peer):
                protocol = transport.get_protocol()
                transport.write(b"x" * size)
                transport.write_eof()
                transport.write_eof()
                assert len(await read_all(peer)) == size
                peer.send(b"answer")
                await until(lambda: protocol.data == b"answer")  # noqa: B023
                peer.shutdown(socket.SHUT_WR)
                assert await protocol.lost is None

    loop.run_until_complete(main())


def test_eof_that_the_kernel_refuses(loop):
    async def main():
        sock = socket.socket()
        sock.setblocking(False)
        transport = loop._make_socket_transport(sock, Recorder())
        transport.pause_reading()
        with pytest.raises(OSError, match="not connected"):
            transport.write_eof()
        transport.abort()
        await turns()

    loop.run_until_complete(main())


def test_an_error_in_pause_writing_that_leaves_the_loop(loop):
    class Protocol(Recorder):
        def pause_writing(self):
            raise KeyboardInterrupt

    async def main():
        async with connected(Protocol) as (transport, _):
            transport.set_write_buffer_limits(high=1000)
            while not transport.get_write_buffer_size():
                transport.write(b"x" * 1000)
            with pytest.raises(KeyboardInterrupt):
                transport.write(b"x" * 1000)

    loop.run_until_complete(main())


def test_transports_that_write_to_each_other(loop):
    """pause_writing() of one writes to another: all of it is sent."""

    async def main():
        async with packets() as (other, other_peer):

            class Protocol(Recorder):
                def pause_writing(self):
                    other.write(b"paused")

            async with connected(Protocol) as (transport, _):
                transport.set_write_buffer_limits(high=200_000)
                while not transport.get_write_buffer_size():
                    transport.write(b"x" * 60_000)
                    await asyncio.sleep(0)
                while not transport._protocol_paused:
                    transport.write(b"x" * 60_000)
                    await asyncio.sleep(0)
                assert messages(other_peer) == [b"paused"]

    loop.run_until_complete(main())


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="counts references")
def test_bytes_are_not_copied_but_let_go(loop):
    async def main():
        async with connected() as (transport, peer):
            data = b"x" * 10_000_000
            before = sys.getrefcount(data)
            transport.write(data)
            assert sys.getrefcount(data) == before + 1
            await read_all(peer, len(data))
            await until(lambda: sys.getrefcount(data) == before)
            transport.write(data)
            transport.abort()
            assert sys.getrefcount(data) == before

    loop.run_until_complete(main())
