"""What bad peers, bad certificates and wrong use get over TLS is what they get on asyncio."""

import asyncio
import logging
import shutil
import socket
import ssl
import struct
import subprocess
import sys

import ouroloop
import pytest
from outcome import Cases, Outcome, stock_loop
from tls_peer import (
    HOST,
    Peer,
    authority,
    client_context,
    mutual_contexts,
    server_context,
    socket_pair,
)

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each
TIMEOUT = 4


class Notes(asyncio.Protocol):
    """Writes down what it is told; `fails` is the method that raises."""

    def __init__(self, fails=None):
        self.fails, self.events, self.transport = fails, [], None
        self.lost = asyncio.get_running_loop().create_future()

    def note(self, *event):
        self.events.append(event)
        if self.fails == event[0]:
            raise ZeroDivisionError(f"in {event[0]}")

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def data_received(self, data):
        if self.events and self.events[-1][0] == "data":
            data = self.events.pop()[1] + data
        self.note("data", data)

    def eof_received(self):
        self.note("eof")

    def connection_lost(self, exc):
        if not self.lost.done():
            self.lost.set_result(None)
        self.note("lost", type(exc).__name__, str(exc))


async def ended(protocol):
    await asyncio.wait([protocol.lost], timeout=TIMEOUT)
    await asyncio.sleep(0.002)
    return protocol.events


async def pair(loop, serve, factory=Notes, context=None, **options):
    """A client that is connected to what `serve(peer)` does by hand; what the client is told."""
    ours, theirs = socket_pair()
    with theirs:
        peer = Peer(theirs, options.pop("server_ssl", None) or server_context())
        serving = loop.create_task(serve(peer))
        try:
            _, protocol = await asyncio.wait_for(
                loop.create_connection(
                    factory,
                    sock=ours,
                    ssl=context or client_context(),
                    server_hostname=options.pop("server_hostname", HOST),
                    **options,
                ),
                TIMEOUT,
            )
            events = await ended(protocol)
            protocol.transport.abort()
            await asyncio.sleep(0.002)
            return events
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            if not serving.cancelled():
                serving.exception()


async def shake(peer):
    await peer.handshake()
    await asyncio.sleep(TIMEOUT)


@cases("good", "expired", "wrong host", "unknown CA", "self-signed")
def certificate(loop, kind):
    async def serve(peer):
        await peer.handshake()
        peer.sock.close()

    return loop.run_until_complete(pair(loop, serve, server_ssl=server_context(kind)))


@case
def certificate_not_verified_when_told_so(loop):
    context = client_context(check_hostname=False, verify_mode=ssl.CERT_NONE)

    async def serve(peer):
        await peer.handshake()
        await peer.close()

    return loop.run_until_complete(
        pair(loop, serve, context=context, server_ssl=server_context("expired"))
    )


async def accept(loop, act, factory=Notes, context=None, **options):
    """What the protocols of a TLS server are told while `act(address)` connects to it."""
    protocols = []

    def make():
        protocols.append(factory())
        return protocols[-1]

    server = await loop.create_server(
        make, "127.0.0.1", 0, ssl=context or server_context(), **options
    )
    result = await act(server.sockets[0].getsockname())
    for protocol in protocols:
        if protocol.transport is not None:
            await ended(protocol)
            protocol.transport.abort()
    server.close()
    await asyncio.sleep(0.005)
    return result, [protocol.events for protocol in protocols]


@cases("with a certificate", "without", "by a stranger")
def client_certificate(loop, kind):
    server, client = mutual_contexts()
    issuer = authority("unknown" if kind == "by a stranger" else "known")
    if kind != "without":
        issuer.issue_cert("client").configure_cert(client)
    client.maximum_version = ssl.TLSVersion.TLSv1_2

    async def act(address):
        try:
            transport, protocol = await loop.create_connection(
                Notes, *address, ssl=client, server_hostname=HOST
            )
        except OSError as error:
            return type(error).__name__, getattr(error, "reason", None)
        transport.close()
        return await ended(protocol)

    return loop.run_until_complete(accept(loop, act, context=server))


@cases(b"GET / HTTP/1.0\r\n\r\n", b"\0" * 50, b"\x16\x03\x01\x00\x05hello", b"\x80", b"")
def garbage_into_a_tls_port(loop, data):
    loop.set_debug(True)

    async def act(address):
        with socket.create_connection(address) as sock:
            sock.setblocking(False)
            await loop.sock_sendall(sock, data)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while piece := await asyncio.wait_for(loop.sock_recv(sock, 1000), TIMEOUT):
                    answer += piece
            except ConnectionResetError:
                pass
            return len(answer) < 20

    return loop.run_until_complete(accept(loop, act))


def reset(sock):
    """Close so that the peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def reset_at_once(peer):
    reset(peer.sock)


async def reset_after_hello(peer):
    await peer.receive()
    reset(peer.sock)


async def reset_in_handshake(peer):
    await peer.receive()
    try:
        peer.tls.do_handshake()
    except ssl.SSLWantReadError:
        await peer.loop.sock_sendall(peer.sock, peer.outgoing.read()[:300])
    reset(peer.sock)


async def reset_after_handshake(peer):
    await peer.handshake()
    reset(peer.sock)


async def reset_in_a_record(peer):
    await peer.handshake()
    await peer.loop.sock_sendall(peer.sock, peer.records(b"x" * 500)[:100])
    await asyncio.sleep(0.01)
    reset(peer.sock)


async def eof_at_once(peer):
    peer.sock.shutdown(socket.SHUT_WR)
    await asyncio.sleep(TIMEOUT)


async def eof_in_handshake(peer):
    await peer.receive()
    peer.sock.close()


async def ragged_eof(peer):
    await peer.send(b"last")
    peer.sock.close()


async def proper_eof(peer):
    await peer.send(b"last")
    await peer.close()
    peer.sock.close()


async def proper_eof_and_waits(peer):
    await peer.send(b"last")
    await peer.close()
    await asyncio.sleep(TIMEOUT)


async def cut_record(peer):
    await peer.handshake()
    await peer.loop.sock_sendall(peer.sock, peer.records(b"whole", b"x" * 500)[:100])
    peer.sock.close()


async def bad_record(peer):
    await peer.handshake()
    await asyncio.sleep(0.005)
    await peer.loop.sock_sendall(peer.sock, b"\x17\x03\x03\x00\x20" + b"x" * 32)
    await asyncio.sleep(TIMEOUT)


async def plain_text(peer):
    await peer.handshake()
    await asyncio.sleep(0.005)
    await peer.loop.sock_sendall(peer.sock, b"we are not encrypted any more\r\n")
    await asyncio.sleep(TIMEOUT)


async def too_long_record(peer):
    await peer.handshake()
    await asyncio.sleep(0.005)
    await peer.loop.sock_sendall(peer.sock, b"\x17\x03\x03\xff\xff")
    await asyncio.sleep(TIMEOUT)


async def wrong_version_record(peer):
    await peer.handshake()
    await asyncio.sleep(0.005)
    await peer.loop.sock_sendall(peer.sock, b"\x17\x05\x05\x00\x10")
    await asyncio.sleep(TIMEOUT)


@cases(
    reset_at_once,
    reset_after_hello,
    reset_in_handshake,
    reset_after_handshake,
    reset_in_a_record,
    eof_at_once,
    eof_in_handshake,
    ragged_eof,
    proper_eof,
    cut_record,
    bad_record,
    plain_text,
    too_long_record,
    wrong_version_record,
)
def peer_misbehaves(loop, serve):
    return loop.run_until_complete(pair(loop, serve))


@cases("connection_made", "data_received", "eof_received", "connection_lost")
def protocol_fails(loop, method):
    name = {"connection_made": "made", "data_received": "data", "eof_received": "eof"}
    fails = name.get(method, "lost")
    return loop.run_until_complete(pair(loop, proper_eof, lambda: Notes(fails)))


@cases("pause", "resume")
def flow_control_fails(loop, name):
    size = 4 << 20

    class Paused(Notes):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(bytes(size))

        def pause_writing(self):
            self.note("pause")

        def resume_writing(self):
            self.note("resume")
            if self.fails != "resume":
                self.transport.close()

    async def serve(peer):
        await peer.handshake()
        # So that the writer waits.
        await asyncio.sleep(0.02)
        left = size
        while left > 0:
            left -= len(await peer.run(peer.tls.read, 1 << 20))
        await peer.close()
        peer.sock.close()

    return loop.run_until_complete(pair(loop, serve, lambda: Paused(name)))


class BufferedNotes(Notes, asyncio.BufferedProtocol):
    """The same for a BufferedProtocol, with what it says to get_buffer()."""

    size, wrong = 10, None

    def get_buffer(self, sizehint):
        if self.wrong is not None:
            return self.wrong() if callable(self.wrong) else self.wrong
        self.buffer = bytearray(self.size)
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes):
        self.data_received(bytes(self.buffer[:nbytes]))


WRONG_BUFFERS = {
    "fails": lambda: 1 / 0,
    "None": lambda: None,
    "text": "text",
    "bytes": b"0123456789",
    "empty": bytearray(),
    "number": 5,
}


@cases(*WRONG_BUFFERS)
def wrong_buffer(loop, name):
    def factory():
        protocol = BufferedNotes()
        protocol.wrong = WRONG_BUFFERS[name]
        return protocol

    return loop.run_until_complete(pair(loop, proper_eof, factory))


@cases("fails in buffer_updated", "works", "one byte")
def buffered(loop, name):
    def factory():
        protocol = BufferedNotes("data" if name.startswith("fails") else None)
        protocol.size = 1 if name == "one byte" else 10
        return protocol

    async def serve(peer):
        await peer.send(b"last")
        # asyncio drops what its protocol has not taken when the peer ends the connection.
        await asyncio.sleep(0.05)
        await peer.close()
        peer.sock.close()

    return loop.run_until_complete(pair(loop, serve, factory))


@cases(0.05)
def handshake_timeout_of_client(loop, timeout):
    async def serve(peer):
        await asyncio.sleep(TIMEOUT)

    return loop.run_until_complete(pair(loop, serve, ssl_handshake_timeout=timeout))


@cases(0.05)
def handshake_timeout_of_server(loop, timeout):
    loop.set_debug(True)

    async def act(address):
        with socket.create_connection(address) as sock:
            sock.setblocking(False)
            return await asyncio.wait_for(loop.sock_recv(sock, 1000), TIMEOUT)

    return loop.run_until_complete(accept(loop, act, ssl_handshake_timeout=timeout))


@case
def shutdown_timeout(loop):
    """A peer that never answers close_notify."""
    if sys.version_info < (3, 11):
        return None

    async def serve(peer):
        await peer.handshake()
        await asyncio.sleep(TIMEOUT)

    class Closes(Notes):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()

    return loop.run_until_complete(pair(loop, serve, Closes, ssl_shutdown_timeout=0.05))


@cases(0, -1, "x", b"")
def bad_timeout(loop, timeout):
    return loop.run_until_complete(pair(loop, shake, ssl_handshake_timeout=timeout))


@cases(0, -1, "x")
def bad_shutdown_timeout(loop, timeout):
    return loop.run_until_complete(pair(loop, shake, ssl_shutdown_timeout=timeout))


def written(loop, use):
    """What `use(transport)` does, and what comes of it."""

    async def main():
        received, result = [], []

        async def serve(peer):
            await peer.handshake()
            while True:
                received.append(await peer.run(peer.tls.read, 1000))
                if not received[-1]:
                    break
            await peer.close()
            peer.sock.close()

        class Uses(Notes):
            def connection_made(self, transport):
                super().connection_made(transport)
                loop.call_soon(self.use)

            def use(self):
                try:
                    result.append(use(self.transport))
                except Exception as error:
                    result.append(f"{type(error).__name__}: {Outcome.text(error)}")
                self.transport.close()

        events = await pair(loop, serve, Uses)
        return result, events, b"".join(received)

    return loop.run_until_complete(main())


WRITES = {
    "bytes": lambda t: t.write(b"data"),
    "bytearray": lambda t: t.write(bytearray(b"data")),
    "memoryview": lambda t: t.write(memoryview(b"data")[1:3]),
    "memoryview of numbers": lambda t: t.write(memoryview(b"datadata").cast("I")),
    "memoryview with steps": lambda t: t.write(memoryview(b"data")[::2]),
    "memoryview of nothing": lambda t: t.write(memoryview(b"")),
    "released memoryview": lambda t: [m := memoryview(b"x"), m.release(), t.write(m)],
    "empty": lambda t: t.write(b""),
    "text": lambda t: t.write("data"),
    "None": lambda t: t.write(None),
    "number": lambda t: t.write(5),
    "list": lambda t: t.write([b"x"]),
    "array-like": lambda t: t.write(type("A", (), {"__len__": lambda self: 1})()),
    "lines": lambda t: t.writelines([b"a", bytearray(b"b"), memoryview(b"c")]),
    "generator of lines": lambda t: t.writelines(c for c in (b"a", b"b")),
    "no lines": lambda t: t.writelines([]),
    "lines None": lambda t: t.writelines(None),
    "lines of text": lambda t: t.writelines(["x"]),
    "lines of empty": lambda t: t.writelines([b"", b""]),
    "eof": lambda t: t.write_eof(),
    "can eof": lambda t: t.can_write_eof(),
    "after close": lambda t: [t.close(), [t.write(b"x") for _ in range(3)]][0],
    "size": lambda t: [t.write(b"x" * 10), t.get_write_buffer_size()][1],
    "limits": lambda t: [t.set_write_buffer_limits(high=100), t.get_write_buffer_limits()][1],
    "low above high": lambda t: t.set_write_buffer_limits(high=1, low=2),
    "negative": lambda t: t.set_write_buffer_limits(low=-1),
    "close twice": lambda t: [t.close(), t.close(), t.is_closing()][2],
    "abort twice": lambda t: [t.abort(), t.abort(), t.is_closing()][2],
    "abort after write": lambda t: [t.write(b"gone?"), t.abort()][1],
    "close after write": lambda t: [t.write(b"not gone"), t.close()][1],
    "pause, close": lambda t: [t.pause_reading(), t.write(b"x"), t.is_reading()][2],
    "extra": lambda t: sorted(t._ssl_protocol._extra),
}

if sys.version_info < (3, 11):
    del WRITES["memoryview of numbers"]  # asyncio 3.10 never comes back from it.


@cases(*WRITES)
def write(loop, name):
    return written(loop, WRITES[name])


@case
def write_after_the_end(loop):
    async def main():
        result = []

        class Writes(Notes):
            def connection_lost(self, exc):
                super().connection_lost(exc)
                transport = self.transport
                for method in ("write", "writelines", "close", "abort", "is_closing", "close"):
                    given = {"write": [b"x"], "writelines": [[b"x"]]}.get(method, [])
                    try:
                        result.append(getattr(transport, method)(*given))
                    except Exception as error:
                        result.append(f"{type(error).__name__}: {error}")

        return await pair(loop, ragged_eof, Writes), result

    return loop.run_until_complete(main())


@cases("client", "server")
def start_tls_after_plain_text(loop, side):
    async def main():
        ours, theirs = socket_pair()
        with theirs:
            server_side = side == "server"
            peer = Peer(
                theirs,
                client_context() if server_side else server_context(),
                server_side=not server_side,
            )
            plain, protocol = Notes(), Notes()
            transport, _ = await loop.create_connection(lambda: plain, sock=ours)
            await loop.sock_sendall(theirs, b"STARTTLS\n")
            while not plain.events[1:]:
                await asyncio.sleep(0.001)
            serving = loop.create_task(peer.handshake())
            new = await loop.start_tls(
                transport,
                protocol,
                server_context() if server_side else client_context(),
                server_side=server_side,
                server_hostname=None if server_side else HOST,
            )
            await serving
            new.write(b"secret")
            got = await peer.read(6)
            await peer.send(b"answer")
            await peer.close()
            theirs.close()
            same = new.get_extra_info("peername") == transport.get_extra_info("peername")
            return got, await ended(protocol), plain.events, same

    return loop.run_until_complete(main())


START_TLS = {
    "no context": {"sslcontext": None},
    "True": {"sslcontext": True},
    "a string": {"sslcontext": "x"},
    "no hostname": {"server_hostname": None},
    "wrong hostname": {"server_hostname": "elsewhere.example"},
    "bad hostname": {"server_hostname": "." * 5},
    "bad timeout": {"ssl_handshake_timeout": 0},
    "timeout": {"ssl_handshake_timeout": 0.05},
    "unknown keyword": {"nothing": 0},
    "client's context at the server": {"server_side": True},
}


@cases(*START_TLS)
def start_tls_misuse(loop, name):
    async def main():
        ours, theirs = socket_pair()
        with theirs:
            peer = Peer(theirs, server_context())
            protocol = Notes()
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            serving = loop.create_task(asyncio.sleep(5) if "time" in name else peer.handshake())
            options = {"sslcontext": client_context(), "server_hostname": HOST, **START_TLS[name]}
            try:
                await loop.start_tls(transport, protocol, **options)
            finally:
                transport.abort()
                serving.cancel()
                await asyncio.wait([serving])
                serving.cancelled() or serving.exception()

    return loop.run_until_complete(main())


@cases("nothing", "a transport of UDP", "None")
def start_tls_over(loop, kind):
    async def main():
        if kind == "None":
            return await loop.start_tls(None, None, client_context())
        if kind == "nothing":
            return await loop.start_tls(asyncio.Transport(), None, client_context())
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        try:
            return await loop.start_tls(transport, None, client_context())
        finally:
            transport.close()
            await asyncio.sleep(0)

    return loop.run_until_complete(main())


@case
def context_without_certificate(loop):
    loop.set_debug(True)

    async def act(address):
        try:
            await loop.create_connection(
                Notes, *address, ssl=client_context(), server_hostname=HOST
            )
        except OSError as error:
            return getattr(error, "reason", None) or type(error).__name__

    return loop.run_until_complete(
        accept(loop, act, context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    )


@case
def renegotiation(loop):
    """OpenSSL's own client asks for it; OpenSSL refuses."""
    program = shutil.which("openssl")
    if program is None:
        return None

    def ask(port):
        with subprocess.Popen(
            [program, "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as client:
            client.stdin.write(b"R\n")
            client.stdin.flush()
            client.wait(TIMEOUT)
            return b"no renegotiation" in client.stderr.read()

    async def act(address):
        return await asyncio.to_thread(ask, address[1])

    return loop.run_until_complete(accept(loop, act))


@cases("cancel at once", "cancel in the handshake", "cancel wait_for")
def cancelled(loop, when):
    async def main():
        ours, theirs = socket_pair()
        with theirs:
            connecting = loop.create_connection(
                Notes, sock=ours, ssl=client_context(), server_hostname=HOST
            )
            if when == "cancel wait_for":
                return await asyncio.wait_for(connecting, 0.02)
            task = loop.create_task(connecting)
            await asyncio.sleep(0.01 if when == "cancel in the handshake" else 0)
            task.cancel()
            await task

    return loop.run_until_complete(main())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, caplog):
    lines = []
    for new_event_loop in (stock_loop, ouroloop.new_event_loop):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="asyncio"):
            outcome = Outcome(case, new_event_loop)
        logged = [f"{r.levelname} {Outcome.text(r.getMessage())}" for r in caplog.records]
        slow = [text for text in logged if "took" in text]
        lines.append([*outcome.lines(), *(text for text in logged if text not in slow)])
    assert lines[1] == lines[0]
