"""What the tests of datagram transports share: a protocol that takes notes, endpoints, sockets."""

import asyncio
import contextlib
import os
import socket
import tempfile


class Peer(asyncio.DatagramProtocol):
    """Keeps what it is told as a list of tuples."""

    def __init__(self, log=None):
        self.log = [] if log is None else log
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.log.append(("made",))

    def datagram_received(self, data, addr):
        self.log.append(("datagram", data))

    def error_received(self, exc):
        self.log.append(("error", type(exc).__name__, exc.errno))

    def pause_writing(self):
        self.log.append(("pause",))

    def resume_writing(self):
        self.log.append(("resume",))

    def connection_lost(self, exc):
        self.log.append(("lost", type(exc).__name__))
        if not self.lost.done():
            self.lost.set_result(None)


@contextlib.asynccontextmanager
async def endpoint(factory=Peer, **options):
    options = options or {"local_addr": ("127.0.0.1", 0)}
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(factory, **options)
    # A transport reads from the turn after on.
    await asyncio.sleep(0)
    try:
        yield transport, protocol
    finally:
        # asyncio's abort() after the end is an AttributeError at times.
        if not transport.is_closing():
            transport.abort()
        await asyncio.sleep(0.001)


@contextlib.contextmanager
def plain(family=socket.AF_INET, address=("127.0.0.1", 0)):
    """A bound blocking socket outside of the loop."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(5)
        yield sock


def nobody():
    with plain() as sock:
        return sock.getsockname()


@contextlib.asynccontextmanager
async def clogged(factory=Peer):
    """A transport that cannot send for now, its protocol, and drain(), a list of what came."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "receiver")
        with plain(socket.AF_UNIX, path) as receiver:
            receiver.setblocking(False)
            async with endpoint(factory, family=socket.AF_UNIX, remote_addr=path) as (
                transport,
                protocol,
            ):
                while transport.get_write_buffer_size() == 0:
                    transport.sendto(b"filler")

                def drain():
                    got = []
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            got.append(receiver.recv(1 << 18))
                    return [data for data in got if data != b"filler"]

                yield transport, protocol, drain
