"""UDP and Unix datagrams."""

import asyncio
import socket

from . import connection, raised, refused


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self):
        self.received, self.errors, self.flow = asyncio.Queue(), asyncio.Queue(), []
        self.lost = asyncio.get_running_loop().create_future()

    def datagram_received(self, data, addr):
        self.received.put_nowait((data, addr))

    def error_received(self, exc):
        self.errors.put_nowait(exc)

    def pause_writing(self):
        self.flow.append("pause")

    def resume_writing(self):
        self.flow.append("resume")

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def endpoint(loop, **options):
    return await loop.create_datagram_endpoint(Datagrams, **options)


async def close(*endpoints):
    for transport, protocol in endpoints:
        transport.close()
        assert await protocol.lost is None


@connection("UDP basic, reuse_port, allow_broadcast, sock=")
async def basics(loop):
    seen = []
    a = await endpoint(loop, local_addr=("127.0.0.1", 0), reuse_port=True)
    where = a[0].get_extra_info("sockname")
    b = await endpoint(loop, remote_addr=where, allow_broadcast=True)
    sock = b[0].get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
    assert a[0].get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    own = socket.socket(type=socket.SOCK_DGRAM)
    own.bind(("127.0.0.1", 0))
    own.setblocking(False)
    c = await endpoint(loop, sock=own)
    for data in (b"one", bytearray(b"two"), memoryview(b"three")):
        b[0].sendto(data)
        got, peer = await asyncio.wait_for(a[1].received.get(), 10)
        seen.append(got)
        assert peer[1] == sock.getsockname()[1]
        a[0].sendto(got, c[0].get_extra_info("sockname"))
        assert await asyncio.wait_for(c[1].received.get(), 10) == (got, where)
    seen.append(refused(a[0].sendto, "text", where))
    seen.append(refused(b[0].sendto, b"x", ("127.0.0.1", 9)).replace(str(where[1]), "PORT"))
    seen.append(await raised(endpoint(loop)))
    seen.append(await raised(endpoint(loop, sock=own, local_addr=where)))
    await close(a, b, c)
    assert own.fileno() == -1
    return seen


@connection("UDP basic, reuse_port, allow_broadcast, sock=")
async def no_flow_calls_after_close(loop):
    receiver = await endpoint(loop, local_addr=("127.0.0.1", 0))
    sender = await endpoint(loop, remote_addr=receiver[0].get_extra_info("sockname"))
    sender[0].set_write_buffer_limits(high=0)
    for _ in range(100):
        sender[0].sendto(b"x" * 1000)
    sender[0].close()
    del sender[1].flow[:]
    await sender[1].lost
    await asyncio.sleep(0.01)
    assert sender[1].flow == []
    await close(receiver)


@connection("UDP empty datagram delivered")
async def empty_datagrams(loop):
    receiver = await endpoint(loop, local_addr=("127.0.0.1", 0))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for data in (b"a", b"", b"b"):
            sock.sendto(data, receiver[0].get_extra_info("sockname"))
    got = [(await asyncio.wait_for(receiver[1].received.get(), 10))[0] for _ in range(3)]
    assert got == [b"a", b"", b"b"]
    # From 3.13 on an empty one is sent as well.
    sender = await endpoint(loop, remote_addr=receiver[0].get_extra_info("sockname"))
    for data in (b"", b"end"):
        sender[0].sendto(data)
    while got[-1] != b"end":
        got.append((await asyncio.wait_for(receiver[1].received.get(), 10))[0])
    await close(receiver, sender)
    return got


@connection("UDP error_received (ECONNREFUSED, EMSGSIZE)")
async def errors(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        nobody = sock.getsockname()
    sender = await endpoint(loop, remote_addr=nobody)
    sender[0].sendto(b"x")
    refusal = await asyncio.wait_for(sender[1].errors.get(), 10)
    assert isinstance(refusal, ConnectionRefusedError)
    sender[0].sendto(b"x" * 100_000)
    too_large = await asyncio.wait_for(sender[1].errors.get(), 10)
    await close(sender)
    return str(refusal), type(too_large).__name__, str(too_large)


@connection("UDP AF_UNIX local_addr=path")
async def unix_datagrams(loop, folder):
    path = str(folder / "socket")
    receiver = await endpoint(loop, local_addr=path, family=socket.AF_UNIX)
    assert receiver[0].get_extra_info("sockname") == path
    sender = await endpoint(loop, remote_addr=path, family=socket.AF_UNIX)
    sender[0].sendto(b"hello")
    got, peer = await asyncio.wait_for(receiver[1].received.get(), 10)
    assert got == b"hello"
    await close(receiver, sender)
    return peer, await raised(endpoint(loop, local_addr=3, family=socket.AF_UNIX))
