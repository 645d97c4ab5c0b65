"""What the tests of transports share: a protocol that keeps what it is told, connected pairs."""

import asyncio
import contextlib
import socket

TIMEOUT = 10


class Recorder(asyncio.Protocol):
    """Keeps the names of its calls, the data, and a future that ends with the connection."""

    keep_open = None

    def __init__(self):
        self.calls = []
        self.data = b""
        self.made = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")
        self.made.set_result(None)

    def data_received(self, data):
        self.data += data
        self.calls.append("data")

    def eof_received(self):
        self.calls.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.calls.append("lost")
        self.lost.set_result(exc)


async def until(condition):
    """Let the loop turn until the condition holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + TIMEOUT
    while not condition():
        assert loop.time() < deadline, "it does not come to that"
        await asyncio.sleep(0.001)


async def turns(count=3):
    """Let the loop turn this often."""
    for _ in range(count):
        await asyncio.sleep(0.0005)


async def settle():
    """Let everybody else do what can be done."""
    await turns(8)


@contextlib.asynccontextmanager
async def connected(protocol_factory=Recorder, kind=socket.SOCK_STREAM, **options):
    """A transport of the running loop and the plain, non-blocking socket at its other end."""
    loop = asyncio.get_running_loop()
    ours, peer = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    peer.setblocking(False)
    protocol = protocol_factory()
    with peer:
        transport = loop._make_socket_transport(ours, protocol, **options)
        await turns()
        try:
            yield transport, peer
        finally:
            transport.abort()
            await turns()
    assert ours.fileno() == -1, "a transport closes its socket"


@contextlib.asynccontextmanager
async def tcp_pair(protocol_factory=Recorder, peer_factory=Recorder):
    """Two transports of the running loop, connected by TCP: the client's and the server's."""
    loop = asyncio.get_running_loop()
    accepted = []

    def factory():
        accepted.append(peer_factory())
        return accepted[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    client, _ = await loop.create_connection(protocol_factory, *address)
    await until(lambda: accepted and hasattr(accepted[0], "transport"))
    await turns()
    try:
        yield client, accepted[0].transport
    finally:
        client.abort()
        accepted[0].transport.abort()
        server.close()
        await server.wait_closed()
        await turns()


async def read_all(peer, size=None):
    """Everything that a plain socket gets until the end, or so many bytes of it."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    while size is None or len(received) < size:
        piece = await asyncio.wait_for(loop.sock_recv(peer, 1 << 20), TIMEOUT)
        if not piece:
            break
        received += piece
    return bytes(received)
