"""csrc/stream_type.c: the methods of stream transports, and whole lives of some."""

import asyncio
import socket
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network import Recorder, connected, read_all, turns, until
from ouroloop import _core
from tls_peer import HOST, client_context, server_context


def test_write_takes_bytes_only(loop):
    async def main():
        async with connected() as (transport, _):
            wanted = (
                "bytes, bytearray, or memoryview object"
                if sys.version_info >= (3, 14)
                else "bytes-like object"
            )
            for junk, name in (("text", "str"), (1, "int"), (None, "NoneType"), ([b"x"], "list")):
                with pytest.raises(TypeError) as caught:
                    transport.write(junk)
                assert str(caught.value) == f"data argument must be a {wanted}, not '{name}'"
            with pytest.raises(TypeError):
                transport.write()
            with pytest.raises(TypeError):
                transport.writelines([b"x", "text"])
            with pytest.raises(TypeError):
                transport.writelines(5)
            assert transport.get_write_buffer_size() == 0
            assert not transport.is_closing()

    loop.run_until_complete(main())


def test_writelines_takes_any_iterable(loop):
    async def main():
        async with connected() as (transport, peer):
            transport.writelines(piece for piece in (b"a", bytearray(b"b"), memoryview(b"c")))
            transport.writelines((b"d", b"e"))
            assert await read_all(peer, 5) == b"abcde"

    loop.run_until_complete(main())


def test_nothing_after_the_end(loop):
    async def main():
        async with connected() as (transport, _):
            transport.write_eof()
            assert transport.can_write_eof() is True
            with pytest.raises(RuntimeError, match=r"^Cannot call write\(\) after write_eof\(\)$"):
                transport.write(b"")
            with pytest.raises(RuntimeError, match=r"^Cannot call write"):
                transport.writelines([b"x"])

    loop.run_until_complete(main())


def test_the_empty_waiter(loop):
    async def main():
        async with connected() as (transport, peer):
            waiter = transport._make_empty_waiter()
            assert waiter.done()
            assert transport._empty_waiter is waiter
            with pytest.raises(RuntimeError, match="Empty waiter is already set"):
                transport._make_empty_waiter()
            with pytest.raises(RuntimeError, match="unable to write; sendfile is in progress"):
                transport.write(b"x")
            with pytest.raises(RuntimeError, match=r"unable to write(lines)?; sendfile is in"):
                transport.writelines([b"x"])
            transport._reset_empty_waiter()
            assert transport._empty_waiter is None
            transport.write(b"x" * 1_000_000)
            waiter = transport._make_empty_waiter()
            assert not waiter.done()
            await read_all(peer, 1_000_000)
            await waiter
            transport._reset_empty_waiter()

    loop.run_until_complete(main())


def test_the_empty_waiter_of_a_connection_that_ends(loop):
    async def main():
        async with connected() as (transport, _):
            transport.write(b"x" * 1_000_000)
            waiter = transport._make_empty_waiter()
            transport.abort()
            with pytest.raises(ConnectionError, match="Connection is closed by peer"):
                await waiter
            with pytest.raises(RuntimeError):
                transport._make_empty_waiter()
        async with connected() as (transport, peer):
            transport.write(b"x" * 1_000_000)
            waiter = transport._make_empty_waiter()
            peer.close()
            with pytest.raises(ConnectionError):
                await waiter
            await turns()

    loop.run_until_complete(main())


def test_the_event_methods_do_nothing_unasked(loop):
    """asyncio's are called by the loop, but nothing stops others."""

    async def main():
        async with connected() as (transport, peer):
            transport._read_ready()
            transport._write_ready()
            peer.send(b"x")
            transport._read_ready()
            assert transport.get_protocol().data == b"x"
            transport.close()
            transport._read_ready()
            transport._write_ready()
            await turns()
            transport._read_ready()
            transport._write_ready()

    loop.run_until_complete(main())


def test_sendfile(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 10_000)

    async def main():
        async with connected() as (transport, peer):
            with open(path, "rb") as file:
                transport.write(b"before ")
                sending = loop.create_task(loop.sendfile(transport, file))
                received = await read_all(peer, 7 + 2_560_000)
                assert received == b"before " + path.read_bytes()
                assert await sending == 2_560_000
                transport.write(b"after")
                assert await read_all(peer, 5) == b"after"
                peer.send(b"and back")
                await until(lambda: transport.get_protocol().data == b"and back")

    loop.run_until_complete(main())


def test_sendfile_without_the_system_call(loop, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)

    async def unavailable(*args):
        raise asyncio.SendfileNotAvailableError

    async def main():
        monkeypatch.setattr(loop, "_sendfile_native", unavailable)
        async with connected() as (transport, peer):
            with open(path, "rb") as file:
                sending = loop.create_task(loop.sendfile(transport, file))
                assert await read_all(peer, 100_000) == b"x" * 100_000
                assert await sending == 100_000

    loop.run_until_complete(main())


def test_sendfile_to_a_peer_that_goes(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10_000_000)

    async def main():
        async with connected() as (transport, peer):
            with open(path, "rb") as file:
                sending = loop.create_task(loop.sendfile(transport, file))
                await read_all(peer, 1000)
                peer.close()
                with pytest.raises(ConnectionError):
                    await sending
                await until(lambda: transport._loop is None)

    loop.run_until_complete(main())


# --- whole lives, compared with asyncio's own transport

SIZES = st.sampled_from([0, 1, 100, 5000, 70_000, 500_000])
# In 3.12 and 3.13 asyncio's waits for ever after an empty piece, and never pauses the protocol.
LINES = st.lists(SIZES, max_size=3) if not (3, 12) <= sys.version_info < (3, 14) else st.just([])
STEPS = st.one_of(
    st.tuples(st.just("write"), SIZES),
    st.tuples(st.just("writelines"), LINES),
    st.tuples(st.just("peer sends"), st.sampled_from([1, 3000, 50_000])),
    st.tuples(st.just("peer reads"), st.sampled_from([1, 10_000, 1_000_000])),
    st.tuples(st.sampled_from(["pause", "resume", "turn", "size", "write_eof", "peer ends"])),
    st.tuples(st.sampled_from(["close", "abort", "limits"])),
)


class Narrator(Recorder):
    """Tells data as a whole: into how many pieces it falls is the kernel's business."""

    def __init__(self, keep_open):
        super().__init__()
        self.keep_open = keep_open

    def data_received(self, data):
        self.data += data


async def live(steps, keep_open):
    """What can be seen of a transport that lives through these steps."""
    loop = asyncio.get_running_loop()
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.setblocking(False)
    protocol = Narrator(keep_open)
    seen = []
    written, received = bytearray(), bytearray()

    def drain(size):
        try:
            piece = peer.recv(size)
        except (BlockingIOError, ConnectionResetError):
            return False
        received.extend(piece)
        return bool(piece)

    with peer:
        transport = loop._make_socket_transport(ours, protocol)
        await turns()
        for name, *arguments in steps:
            try:
                if name == "write":
                    transport.write(b"w" * arguments[0])
                    written.extend(b"w" * arguments[0])
                elif name == "writelines":
                    transport.writelines([b"l" * size for size in arguments[0]])
                    written.extend(b"l" * sum(arguments[0]))
                elif name == "peer sends":
                    try:
                        peer.send(b"p" * arguments[0])
                    except OSError:
                        seen.append("the peer cannot send")
                elif name == "peer reads":
                    drain(arguments[0])
                elif name == "peer ends":
                    peer.shutdown(socket.SHUT_WR)
                elif name == "turn":
                    await turns()
                elif name == "size":
                    seen.append(transport.get_write_buffer_size() > 0)
                elif name == "limits":
                    transport.set_write_buffer_limits(100_000, 0)
                elif name == "pause":
                    transport.pause_reading()
                elif name == "resume":
                    transport.resume_reading()
                else:
                    getattr(transport, name)()
            except Exception as error:
                seen.append(repr(error))
            seen.append((name, transport.is_closing(), transport.is_reading()))
        transport.close()
        for _ in range(30):
            while drain(1 << 20):
                pass
            await turns(1)
        seen.append(protocol.lost.result() if protocol.lost.done() else "open")
        if not protocol.lost.done():
            transport.abort()
            await turns()
    assert written.startswith(received)
    # How much the kernel had taken of what an abort() drops depends on how it was given.
    arrived = len(received) if ("abort",) not in steps else "some"
    return seen, protocol.calls, len(protocol.data), arrived


def run(new_event_loop, steps, keep_open):
    loop = new_event_loop()
    # What asyncio's transport does wrong itself is not compared.
    loop.set_exception_handler(lambda loop, context: None)
    try:
        return loop.run_until_complete(live(steps, keep_open))
    finally:
        loop.close()


@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(st.lists(STEPS, max_size=14), st.booleans())
def test_a_life_as_on_asyncio(steps, keep_open):
    import ouroloop

    expected = run(asyncio.SelectorEventLoop, steps, keep_open)
    assert run(ouroloop.new_event_loop, steps, keep_open) == expected


def test_write_and_writelines_by_keyword(loop):
    async def main():
        async with connected() as (transport, peer):
            transport.write(data=b"one")
            transport.writelines(list_of_data=[b"two", b"three"])
            assert await read_all(peer, 11) == b"onetwothree"
            for method in transport.write, transport.writelines:
                for args, keywords in (((), {}), ((b"a", b"b"), {}), ((), {"nothing": b"a"})):
                    with pytest.raises(TypeError, match="argument"):
                        method(*args, **keywords)

    loop.run_until_complete(main())


class Noting(socket.socket):
    """Does all itself, and says what."""

    calls = ()

    def recv(self, *args):
        self.calls.append("recv")
        return super().recv(*args)

    def recv_into(self, *args):
        self.calls.append("recv_into")
        return super().recv_into(*args)

    def send(self, *args):
        self.calls.append("send")
        return super().send(*args)

    def sendmsg(self, *args):
        self.calls.append("send")
        return super().sendmsg(*args)

    def shutdown(self, *args):
        self.calls.append("shutdown")
        return super().shutdown(*args)


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        self.buffer = bytearray(100)
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data_received(bytes(self.buffer[:nbytes]))


@pytest.mark.parametrize(
    ("factory", "reads"), [(Recorder, "recv"), (BufferedRecorder, "recv_into")]
)
def test_a_socket_with_methods_of_its_own_is_asked(loop, pair, factory, reads):
    a, peer = pair
    sock = Noting(fileno=a.detach())
    sock.calls = []

    async def main():
        transport, protocol = await loop.create_connection(factory, sock=sock)
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"there")
        assert await loop.sock_recv(peer, 9) == b"there"
        peer.send(b"back")
        await until(lambda: protocol.data == b"back")
        transport.write_eof()
        assert await loop.sock_recv(peer, 9) == b""
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(sock, print)
        transport.close()
        assert await protocol.lost is None
        assert sock.fileno() == -1

    peer.setblocking(False)
    loop.run_until_complete(main())
    assert sock.calls == ["send", reads, "shutdown"]


@pytest.mark.parametrize("way", ["instance", "__getattribute__"])
def test_a_socket_whose_methods_are_not_in_its_class(loop, pair, way):
    a, peer = pair
    calls = []

    class Open(socket.socket):
        """Has room for attributes."""

    class Asking(socket.socket):
        def __getattribute__(self, name):
            if name in ("recv", "send"):
                calls.append(name)
            return super().__getattribute__(name)

    def noting(name):
        method = getattr(sock, name)

        def call(*args):
            calls.append(name)
            return method(*args)

        return call

    sock = (Open if way == "instance" else Asking)(fileno=a.detach())
    if way == "instance":
        sock.recv, sock.send = noting("recv"), noting("send")

    async def main():
        transport, protocol = await loop.create_connection(Recorder, sock=sock)
        transport.write(b"there")
        assert await loop.sock_recv(peer, 9) == b"there"
        peer.send(b"back")
        await until(lambda: protocol.data == b"back")
        transport.close()
        assert await protocol.lost is None

    peer.setblocking(False)
    loop.run_until_complete(main())
    assert calls == ["send", "recv"]


def test_streams_on_a_socket_with_methods_of_its_own(loop, pair):
    a, peer = pair
    sock = Noting(fileno=a.detach())
    sock.calls = []

    async def main():
        reader, writer = await asyncio.open_connection(sock=sock)
        peer.send(b"a line\nrest")
        assert await reader.readline() == b"a line\n"
        writer.write(b"x" * 1_000_000)
        received, _ = await asyncio.gather(
            asyncio.to_thread(read_so_much, peer, 1_000_000), writer.drain()
        )
        assert received == b"x" * 1_000_000
        peer.shutdown(socket.SHUT_WR)
        assert await reader.read() == b"rest"
        writer.close()
        await writer.wait_closed()

    loop.run_until_complete(main())
    assert set(sock.calls) == {"send", "recv"}


def read_so_much(sock, size):
    sock.setblocking(True)
    data = b""
    while len(data) < size:
        data += sock.recv(size)
    return data


@pytest.mark.parametrize("side", ["client", "server"])
def test_tls_on_a_socket_with_methods_of_its_own(loop, pair, side):
    a, b = pair
    sock = Noting(fileno=a.detach())
    sock.calls = []

    async def main():
        ends = (sock, b) if side == "client" else (b, sock)
        as_server = loop.connect_accepted_socket(Recorder, ends[1], ssl=server_context())
        as_client = loop.create_connection(
            Recorder, sock=ends[0], ssl=client_context(), server_hostname=HOST
        )
        (here, there), (far, peer) = await asyncio.gather(as_client, as_server)
        here.write(b"x" * 100_000)
        await until(lambda: len(peer.data) == 100_000)
        far.write(b"back")
        await until(lambda: there.data == b"back")
        here.close()
        assert await there.lost is None
        await peer.lost
        far.close()

    for end in (sock, b):
        end.setblocking(False)
    loop.run_until_complete(main())
    assert {"recv", "send"} <= {call.removesuffix("_into") for call in sock.calls}


def test_a_socket_with_nothing_of_its_own(loop, pair):
    class Named(socket.socket):
        name = "mine"

    async def main():
        transport, _ = await loop.create_connection(Recorder, sock=Named(fileno=pair[0].detach()))
        assert type(transport) is _core.StreamTransport
        transport.abort()

    loop.run_until_complete(main())
