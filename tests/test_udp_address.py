"""Addresses of datagrams: of who sent one, of whom one is for, and of one remote end for all."""

import asyncio
import contextlib
import os
import socket
import struct
import sys
import tempfile

import pytest
from network import until
from outcome import AwaitedCases, on_both
from udp_peers import Peer, endpoint, nobody, plain

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = AwaitedCases()
case = CASES.awaited


# --- who sent it


@case(socket.AF_INET, socket.AF_INET6)
async def sender_addresses(loop, family):
    log = []

    class Notes(Peer):
        def datagram_received(self, data, addr):
            log.append((data, addr[0], addr[2:], len(addr), addr[1] in ports))

    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    async with endpoint(Notes, local_addr=(host, 0)) as (receiver, _):
        to = receiver.get_extra_info("sockname")
        with plain(family, (host, 0)) as a, plain(family, (host, 0)) as b:
            ports = {a.getsockname()[1], b.getsockname()[1]}
            for sock in (a, a, b, a, b, b):
                sock.sendto(b"a" if sock is a else b"b", to)
            await until(lambda: len(log) == 6)
    return log, len(to)


@case("path", "abstract", "none")
async def unix_sender_addresses(loop, kind):
    with tempfile.TemporaryDirectory() as directory:
        log = []

        class Notes(Peer):
            def datagram_received(self, data, addr):
                log.append((data, type(addr).__name__, str(addr).replace(directory, "DIR")))

        path = os.path.join(directory, "receiver")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            if kind == "path":
                sock.bind(os.path.join(directory, "sender"))
            elif kind == "abstract":
                sock.bind(b"\0ouroloop-test")
            async with endpoint(Notes, family=socket.AF_UNIX, local_addr=path) as (receiver, _):
                name = receiver.get_extra_info("sockname")
                for data in (b"1", b"2", b"3" * 100_000):
                    sock.sendto(data, path)
                await until(lambda: len(log) == 3)
        return log, name == path, receiver.get_extra_info("peername")


@case()
async def unix_replies(loop):
    with tempfile.TemporaryDirectory() as directory:

        class Echo(Peer):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                self.transport.sendto(data + b"!", addr)

        path = os.path.join(directory, "receiver")
        with plain(socket.AF_UNIX, os.path.join(directory, "sender")) as sock:
            async with endpoint(Echo, family=socket.AF_UNIX, local_addr=path) as (_, protocol):
                for data in (b"1", b"2"):
                    sock.sendto(data, path)
                await until(lambda: len(protocol.log) == 3)
                return sock.recv(10), sock.recv(10)


@case()
async def socketpair_without_names(loop):
    # asyncio takes the peer's empty name for none.
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with b:
        a.setblocking(False)
        async with endpoint(sock=a) as (transport, protocol):
            b.send(b"in")
            await until(lambda: len(protocol.log) == 2)
            transport.sendto(b"out")
            await protocol.lost
            return protocol.log, transport.get_extra_info("peername")


@case()
async def seqpacket(loop):
    if sys.version_info < (3, 11):
        return "datagram sockets only"
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    a.setblocking(False)
    async with endpoint(sock=a) as (_, protocol):
        for n in range(3):
            b.send(b"%d" % n)
        await until(lambda: len(protocol.log) == 4)
        b.close()
        await until(lambda: len(protocol.log) >= 6)
        return protocol.log[:6]


@case()
async def the_same_address_object_again(loop):
    class Echo(Peer):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.sendto(data, addr)
            # Not the object from the kernel, but equal.
            self.transport.sendto(data + b"2", (addr[0], addr[1]))

    async with endpoint(Echo) as (transport, protocol):
        with plain() as a, plain() as b:
            to = transport.get_extra_info("sockname")
            for sock, data in ((a, b"1"), (b, b"2"), (a, b"3")):
                sock.sendto(data, to)
            await until(lambda: len(protocol.log) == 4)
            return [sock.recv(5) for sock in (a, a, b, b, a, a)]


@case()
async def senders_of_one_port(loop):
    """Each is told apart, and answered, by its host, in turn and over again."""
    hosts = ["127.0.0.1", "127.0.0.9", "127.0.0.10", "127.0.10.99", "127.100.255.200"]

    class Echo(Peer):
        def datagram_received(self, data, addr):
            self.log.append((data, addr[0]))
            self.transport.sendto(data + addr[0].encode(), addr)

    with contextlib.ExitStack() as stack:
        first = stack.enter_context(plain())
        port = first.getsockname()[1]
        socks = [first, *(stack.enter_context(plain(address=(h, port))) for h in hosts[1:])]
        async with endpoint(Echo) as (transport, protocol):
            answers = []
            for number in range(3 * len(socks)):
                sock = socks[number % len(socks)]
                sock.sendto(b"%d " % number, transport.get_extra_info("sockname"))
                await until(lambda n=number: len(protocol.log) > n + 1)
                answers.append(sock.recv(30))
            return answers, protocol.log


# --- whom it is for


BAD_ADDRESSES = (
    ("127.0.0.1",),
    ("127.0.0.1", "9"),
    ("127.0.0.1", -1),
    ("127.0.0.1", 65536),
    ("127.0.0.1", 9, 0),
    ("127.0.0.1", 1 << 80),
    ("127.0.0.1\0", 9),
    ("127.0.0.256", 9),
    ("\xe4\xf6", 9),
    ("\ud800", 9),
    (None, 9),
    (127, 9),
    ["127.0.0.1", 9],
    "127.0.0.1",
    b"127.0.0.1",
    5,
    (),
    ("::1", 9),
    ("nowhere.invalid", 9),
)


@case(*BAD_ADDRESSES)
async def send_to_bad_address(loop, address):
    async with endpoint() as (transport, protocol):
        transport.sendto(b"x", address)
        await asyncio.sleep(0.01)
        return protocol.log, transport.is_closing()


@case()
async def send_without_address(loop):
    async with endpoint() as (transport, protocol):
        transport.sendto(b"x")
        await protocol.lost
        return protocol.log


@case("", "0.0.0.0", "127.0.0.1", b"127.0.0.1", "127.1", "localhost", bytearray(b"127.0.0.1"))
async def send_to_host(loop, host):
    async with endpoint() as (transport, protocol):
        with plain(address=("0.0.0.0", 0)) as sock:
            transport.sendto(b"hello", (host, sock.getsockname()[1]))
            transport.sendto(b"again", addr=(host, sock.getsockname()[1]))
            return sock.recv(10), sock.recv(10), protocol.log


@case(
    ("::1", "PORT"),
    ("::1", "PORT", 0),
    ("::1", "PORT", 0, 0),
    ("::1", "PORT", 7, 0),
    ("::1%lo", "PORT"),
    ("::1", "PORT", 1 << 20, 0),
    ("::1", "PORT", -1, 0),
    ("::1", "PORT", 0, 1 << 33),
    ("::1", "PORT", 0, 0, 0),
    ("127.0.0.1", "PORT"),
    ("::ffff:127.0.0.1", "PORT"),
)
async def send_to_ipv6(loop, address):
    async with endpoint(local_addr=("::", 0)) as (transport, protocol):
        with plain(socket.AF_INET6, ("::", 0)) as sock:
            port = sock.getsockname()[1]
            transport.sendto(b"x", tuple(port if part == "PORT" else part for part in address))
            await asyncio.sleep(0.005)
            sock.setblocking(False)
            try:
                got = sock.recv(10)
            except BlockingIOError:
                got = None
            return got, protocol.log


# --- a remote address


@case(None, "same", "equal", "other", "nonsense")
async def send_to_when_connected(loop, which):
    with plain() as sock:
        remote = sock.getsockname()
        async with endpoint(remote_addr=remote) as (transport, protocol):
            address = {
                None: None,
                "same": remote,
                "equal": (remote[0], remote[1]),
                "other": ("127.0.0.1", 9),
                "nonsense": 5,
            }[which]
            transport.sendto(b"hello", address)
            return sock.recv(10), protocol.log, transport.get_extra_info("peername") == remote


@case()
async def a_broken_comparison(loop):
    class Broken:
        def __eq__(self, other):
            raise ZeroDivisionError("no")

        __hash__ = None

    async with endpoint(remote_addr=nobody()) as (transport, _):
        transport.sendto(b"x", Broken())


@case()
async def broadcast_with_a_remote_address(loop):
    # allow_broadcast leaves the socket unconnected.
    with plain() as sock:
        async with endpoint(remote_addr=sock.getsockname(), allow_broadcast=True) as (
            transport,
            protocol,
        ):
            transport.sendto(b"hello")
            raw = transport.get_extra_info("socket")
            return (
                sock.recv(10),
                protocol.log,
                transport.get_extra_info("peername"),
                raw.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST),
            )


@case()
async def given_socket(loop):
    with plain() as peer:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(peer.getsockname())
        async with endpoint(sock=sock) as (transport, protocol):
            transport.sendto(b"one")
            # No address was given to asyncio, which then looks at none.
            transport.sendto(b"two", ("127.0.0.1", 9))
            peer.sendto(b"back", sock.getsockname())
            await until(lambda: len(protocol.log) == 2)
            return peer.recv(10), peer.recv(10), protocol.log, sock.gettimeout()


# --- shared by many


@case()
async def shared_port(loop):
    async with endpoint(local_addr=("127.0.0.1", 0), reuse_port=True) as (first, _):
        address = first.get_extra_info("sockname")
        async with endpoint(local_addr=address, reuse_port=True) as (second, _):
            return second.get_extra_info("sockname") == address


@case()
async def multicast(loop):
    group = "239.255.42.99"
    async with endpoint(local_addr=("0.0.0.0", 0)) as (receiver, protocol):
        raw = receiver.get_extra_info("socket")
        member = struct.pack("4s4s", socket.inet_aton(group), socket.inet_aton("127.0.0.1"))
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        async with endpoint() as (sender, _):
            raw = sender.get_extra_info("socket")
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            sender.sendto(b"all", (group, receiver.get_extra_info("sockname")[1]))
            await until(lambda: len(protocol.log) == 2)
    return protocol.log


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, debug):
    stock, ours = on_both(case, debug=debug)
    assert ours.lines() == stock.lines()
