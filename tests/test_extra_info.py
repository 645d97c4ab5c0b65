"""csrc/extra_info.c: the addresses and the socket object of a transport."""

import asyncio
import os
import socket
import sys

import pytest
from network import Recorder, connected, tcp_pair, turns, until


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_internet_addresses(loop):
    async def main():
        async with tcp_pair() as (client, server):
            ours, theirs = client.get_extra_info, server.get_extra_info
            assert ours("peername") == theirs("sockname")
            assert ours("sockname") == theirs("peername")
            host, port = ours("sockname")
            assert host == "127.0.0.1"
            assert port > 0
            assert ours("sockname") is ours("sockname")
            assert ours("sockname") == client.get_extra_info("socket").getsockname()

    loop.run_until_complete(main())


@pytest.mark.skipif(not has_ipv6(), reason="the machine has no IPv6")
def test_ipv6_addresses(loop):
    async def main():
        accepted = []

        class Server(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                accepted.append(transport)

        server = await loop.create_server(Server, "::1", 0)
        listening = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(Recorder, *listening[:2])
        await until(lambda: accepted)
        assert transport.get_extra_info("peername") == listening
        assert accepted[0].get_extra_info("sockname") == listening
        own = transport.get_extra_info("socket").getsockname()
        assert transport.get_extra_info("sockname") == own
        assert accepted[0].get_extra_info("peername") == own
        transport.close()
        server.close()
        await turns()

    loop.run_until_complete(main())


@pytest.mark.parametrize("name", ["path", "abstract", "bytes"])
def test_unix_addresses(loop, tmp_path, name):
    async def main():
        address = {
            "path": str(tmp_path / "söcket"),
            "abstract": b"\0ouroloop-test-%d" % os.getpid(),
            "bytes": os.fsencode(tmp_path / "raw"),
        }[name]
        accepted = []

        class Server(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                accepted.append(transport)

        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        server = await loop.create_unix_server(Server, sock=listener)
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        transport, _ = await loop.create_unix_connection(Recorder, sock=sock)
        await until(lambda: accepted)
        shown = os.fsdecode(address) if name != "abstract" else address
        assert transport.get_extra_info("peername") == shown
        assert transport.get_extra_info("sockname") == ""
        assert accepted[0].get_extra_info("sockname") == shown
        assert accepted[0].get_extra_info("peername") == ""
        transport.close()
        server.close()
        await until(lambda: accepted[0]._loop is None)
        assert accepted[0].get_extra_info("sockname") == shown
        sock = accepted[0].get_extra_info("socket")
        assert (sock.family, sock.fileno()) == (socket.AF_UNIX, -1)

    if name == "abstract" and not sys.platform.startswith("linux"):
        pytest.skip("abstract names are Linux's")
    loop.run_until_complete(main())


@pytest.mark.parametrize("asked_before", [False, True])
def test_it_outlives_the_connection(loop, asked_before):
    names = ("sockname", "peername")

    async def main():
        async with tcp_pair() as (client, server):
            # Through no transport, which would have been asked then.
            one, other = client._sock_fd, server._sock_fd
            with socket.socket(fileno=os.dup(one)) as a, socket.socket(fileno=os.dup(other)) as b:
                expected = [(s.getsockname(), s.getpeername()) for s in (a, b)]
            if asked_before:
                for transport in (client, server):
                    transport.get_extra_info("socket")
                    assert all(map(transport.get_extra_info, names))
            client.close()
            await until(lambda: client._loop is server._loop is None)
            for transport, addresses in zip((client, server), expected, strict=True):
                assert tuple(map(transport.get_extra_info, names)) == addresses
                sock = transport.get_extra_info("socket")
                assert isinstance(sock, asyncio.trsock.TransportSocket)
                assert sock.fileno() == -1
                assert sock.family == socket.AF_INET
                assert transport._sock is None

    loop.run_until_complete(main())


def test_the_socket_object(loop):
    async def main():
        async with tcp_pair() as (client, server):
            for transport in (client, server):
                sock = transport.get_extra_info("socket")
                assert isinstance(sock, asyncio.trsock.TransportSocket)
                assert transport.get_extra_info("socket") is sock
                assert sock.fileno() == transport._sock_fd
                assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_STREAM)
                assert sock.gettimeout() == 0
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
                assert transport._sock.fileno() == sock.fileno()
            server.close()
            client.close()
            await until(lambda: client._loop is server._loop is None)
            assert server.get_extra_info("socket").fileno() == -1

    loop.run_until_complete(main())


def test_the_users_socket_object_is_used_and_closed(loop):
    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            assert transport._sock is a
            assert transport.get_extra_info("socket")._sock is a
            transport.close()
            await protocol.lost
            await turns()
            assert a.fileno() == -1

    loop.run_until_complete(main())


def test_unconnected(loop):
    """A socket that was never connected has no peer."""

    async def main():
        sock = socket.socket()
        sock.setblocking(False)
        transport = loop._make_socket_transport(sock, Recorder())
        transport.pause_reading()
        assert transport.get_extra_info("peername") is None
        assert transport.get_extra_info("peername", "default") is None
        assert transport.get_extra_info("sockname") == ("0.0.0.0", 0)
        transport.close()
        await turns()

    loop.run_until_complete(main())


def test_given_extra_info(loop):
    async def main():
        extra = {"peername": "given", "mine": 1}
        async with connected(extra=extra) as (transport, _):
            assert transport.get_extra_info("peername") == "given"
            assert transport.get_extra_info("mine") == 1
            assert transport.get_extra_info("sockname") == ""
            assert transport._extra is extra
            assert isinstance(extra["socket"], asyncio.trsock.TransportSocket)

    loop.run_until_complete(main())


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="netlink is Linux's")
def test_a_family_that_only_the_socket_module_knows(loop):
    async def main():
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM)
        sock.bind((0, 0))
        sock.setblocking(False)
        expected = sock.getsockname(), sock.getpeername()
        transport = loop._make_socket_transport(sock, Recorder())
        transport.close()
        await turns()
        assert sock.fileno() == -1
        assert transport.get_extra_info("sockname") == expected[0]
        assert transport.get_extra_info("peername") == expected[1]

    loop.run_until_complete(main())
