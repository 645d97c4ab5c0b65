"""What wrong use of connections, servers, transports and DNS gets is what it gets on asyncio."""

import asyncio
import os
import socket
import tempfile

import pytest
from outcome import Cases, on_both, with_pair

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each


def with_server(loop, **options):
    async def main():
        server = await loop.create_server(asyncio.Protocol, **options)
        server.close()
        await server.wait_closed()
        return "served"

    return loop.run_until_complete(main())


def connect(loop, *args, **options):
    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, *args, **options)
        transport.abort()
        await asyncio.sleep(0)
        return "connected"

    return loop.run_until_complete(main())


@case
def connect_without_host_and_sock(loop):
    return connect(loop)


@case
def connect_with_host_and_sock(loop):
    return with_pair(lambda a, b: connect(loop, "127.0.0.1", 1, sock=a))


@case
def connect_refused(loop):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return connect(loop, *sock.getsockname())


@cases("no such host", "", "a" * 300, "host\0name", b"\xff")
def connect_bad_host(loop, host):
    return connect(loop, host, 80)


@cases(-1, 65536, 10**20, "no such service", 1.5, object)
def connect_bad_port(loop, port):
    return connect(loop, "127.0.0.1", port)


@case
def connect_bad_local_address(loop):
    # An address of this machine's neighbours, never its own (RFC 5737).
    return connect(loop, "127.0.0.1", 9, local_addr=("192.0.2.1", 0))


@case
def connect_udp_socket(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        return connect(loop, sock=sock)


@case
def connect_server_hostname_without_ssl(loop):
    return connect(loop, "127.0.0.1", 9, server_hostname="x")


@case
def connect_ssl_without_hostname(loop):
    return with_pair(lambda a, b: connect(loop, sock=a, ssl=True))


@cases(1, "yes", object)
def connect_bad_ssl(loop, ssl):
    return with_pair(lambda a, b: connect(loop, sock=a, ssl=ssl, server_hostname=""))


@case
def connect_ssl_timeout_without_ssl(loop):
    return connect(loop, "127.0.0.1", 9, ssl_handshake_timeout=1)


@case
def serve_without_host_and_sock(loop):
    return with_server(loop)


@case
def serve_with_host_and_sock(loop):
    return with_pair(lambda a, b: with_server(loop, host="127.0.0.1", sock=a))


@case
def serve_address_in_use(loop):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        return with_server(loop, host="127.0.0.1", port=sock.getsockname()[1])


@cases("no such host", "192.0.2.1", 5)
def serve_bad_host(loop, host):
    return with_server(loop, host=host, port=0)


@cases(-1, 65536, "no such service", object)
def serve_bad_port(loop, port):
    return with_server(loop, host="127.0.0.1", port=port)


@case
def serve_bad_ssl(loop):
    return with_server(loop, host="127.0.0.1", port=0, ssl=True)


@case
def serve_udp_socket(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        return with_server(loop, sock=sock)


@case
def serve_backlog_not_a_number(loop):
    return with_server(loop, host="127.0.0.1", port=0, backlog="many")


@case
def serve_forever_twice(loop):
    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        first = loop.create_task(server.serve_forever())
        await asyncio.sleep(0)
        try:
            await server.serve_forever()
        except RuntimeError as error:
            return str(error).split(" at 0x")[0].partition("<")[0], "already" in str(error)
        finally:
            first.cancel()
            server.close()
            await asyncio.wait([first])

    return loop.run_until_complete(main())


UNIX = {
    "no such path": {"path": "/no/such/directory/socket"},
    "neither": {},
    "not a path": {"path": 1.5},
    "too long": {"path": "/tmp/" + "x" * 200},
    "hostname without ssl": {"path": "/no/such", "server_hostname": "x"},
}


@cases(*UNIX)
def connect_unix(loop, name):
    async def main():
        await loop.create_unix_connection(asyncio.Protocol, **UNIX[name])

    return loop.run_until_complete(main())


@cases("no such path", "neither", "not a path", "too long")
def serve_unix(loop, name):
    async def main():
        await loop.create_unix_server(asyncio.Protocol, **UNIX[name])

    return loop.run_until_complete(main())


@case
def serve_unix_in_use(loop):
    async def main():
        with tempfile.TemporaryDirectory() as directory:
            before = os.getcwd()
            os.chdir(directory)
            server = await loop.create_unix_server(asyncio.Protocol, "socket")
            try:
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.bind("other")
                    await loop.create_unix_server(asyncio.Protocol, sock=sock, path="x")
            finally:
                os.chdir(before)
                server.close()

    return loop.run_until_complete(main())


@case
def accepted_udp_socket(loop):
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            await loop.connect_accepted_socket(asyncio.Protocol, sock)

    return loop.run_until_complete(main())


def protocol_factory_fails():
    raise ZeroDivisionError("in the factory")


@case
def connect_factory_fails(loop):
    async def main(a, b):
        await loop.create_connection(protocol_factory_fails, sock=a)

    return with_pair(lambda a, b: loop.run_until_complete(main(a, b)))


class FailsIn(asyncio.Protocol):
    """A protocol with one method that raises, and a future done when the connection is lost."""

    def __init__(self, loop, method):
        self.lost = loop.create_future()
        if method:
            setattr(self, method, self.fail)

    def fail(self, *args):
        raise ZeroDivisionError("in the protocol")

    def connection_lost(self, exc):
        self.lost.set_result(type(exc).__name__)


@cases("connection_made", "data_received", "eof_received")
def protocol_fails(loop, method):
    async def main(a, b):
        _, protocol = await loop.create_connection(lambda: FailsIn(loop, method), sock=a)
        b.send(b"data")
        b.shutdown(socket.SHUT_WR)
        return await asyncio.wait_for(protocol.lost, 5)

    return with_pair(lambda a, b: loop.run_until_complete(main(a.dup(), b)))


@cases("text", None, 1, [b"x"], object)
def write_junk(loop, data):
    async def main(a, b):
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
        try:
            return transport.write(data)
        finally:
            transport.abort()
            await asyncio.sleep(0)

    return with_pair(lambda a, b: loop.run_until_complete(main(a.dup(), b)))


TRANSPORT_MISUSE = {
    "write after eof": lambda t: t.write_eof() or t.write(b"x"),
    "writelines after eof": lambda t: t.write_eof() or t.writelines([b"x"]),
    "writelines of text": lambda t: t.writelines(["x"]),
    "writelines of nothing": lambda t: t.writelines(None),
    "pause twice": lambda t: t.pause_reading() or t.pause_reading() or t.is_reading(),
    "resume when not paused": lambda t: t.resume_reading() or t.is_reading(),
    "pause after close": lambda t: t.close() or t.pause_reading() or t.is_reading(),
    "close twice": lambda t: t.close() or t.close() or t.is_closing(),
    "abort twice": lambda t: t.abort() or t.abort() or t.is_closing(),
    "write after close": lambda t: t.close() or t.write(b"x"),
    "eof after close": lambda t: t.close() or t.write_eof(),
    "low above high": lambda t: t.set_write_buffer_limits(high=1, low=2),
    "negative low": lambda t: t.set_write_buffer_limits(low=-1),
    "default limits": lambda t: t.get_write_buffer_limits(),
    "limits from high": lambda t: (
        t.set_write_buffer_limits(high=100) or t.get_write_buffer_limits()
    ),
    "limits from low": lambda t: t.set_write_buffer_limits(low=100) or t.get_write_buffer_limits(),
    "unknown extra": lambda t: (t.get_extra_info("x"), t.get_extra_info("x", 5)),
}


@cases(*TRANSPORT_MISUSE)
def transport_misuse(loop, name):
    async def main(a, b):
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
        try:
            return TRANSPORT_MISUSE[name](transport)
        finally:
            transport.abort()
            await asyncio.sleep(0)

    return with_pair(lambda a, b: loop.run_until_complete(main(a.dup(), b)))


@case
def write_after_connection_lost(loop):
    async def main(a, b):
        transport, protocol = await loop.create_connection(lambda: FailsIn(loop, None), sock=a)
        transport.abort()
        await protocol.lost
        return [transport.write(b"x") for _ in range(7)]

    return with_pair(lambda a, b: loop.run_until_complete(main(a.dup(), b)))


@cases("no such host", b"\xff", 5)
def getaddrinfo_bad_host(loop, host):
    return loop.run_until_complete(loop.getaddrinfo(host, 80))


@cases("no such service", -1, object)
def getaddrinfo_bad_port(loop, port):
    return loop.run_until_complete(loop.getaddrinfo("127.0.0.1", port))


@cases("127.0.0.1", ("127.0.0.1",), ("no such host", 80), ("127.0.0.1", "x"))
def getnameinfo_bad_address(loop, address):
    return loop.run_until_complete(loop.getnameinfo(address))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case):
    stock, ours = on_both(case)
    assert ours.lines() == stock.lines()
