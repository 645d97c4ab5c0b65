"""csrc/udp_type.c: what Python sees of a datagram transport."""

import asyncio
import functools
import gc
import socket
import weakref

import pytest
from network import until
from ouroloop import _core
from udp_peers import Peer, endpoint, nobody, plain


def test_what_it_is(loop):
    async def main():
        async with endpoint() as (transport, protocol):
            assert isinstance(transport, asyncio.DatagramTransport)
            assert type(transport) is _core.DatagramTransport
            assert transport.get_protocol() is protocol
            assert repr(transport).startswith("<DatagramTransport fd=")
            assert "read=polling write=<idle, bufsize=0>" in repr(transport)
            with pytest.raises(NotImplementedError):
                transport.write(b"x")
        assert repr(transport).startswith("<DatagramTransport closed fd=")

    loop.run_until_complete(main())


def test_it_is_made_by_the_loop_only():
    with pytest.raises(TypeError):
        _core.DatagramTransport()


def test_arguments_are_checked(loop):
    async def main():
        with plain() as sock:
            for arguments, keywords in (
                ((), {}),
                ((sock,), {}),
                ((sock, Peer(), None, None, None, None), {}),
                ((sock, Peer()), {"server": None}),
            ):
                with pytest.raises(TypeError):
                    loop._make_datagram_transport(*arguments, **keywords)
            with pytest.raises(ValueError, match="Invalid file object"):
                loop._make_datagram_transport(object(), Peer())
            with pytest.raises(AttributeError):
                loop._make_datagram_transport(sock, object())
            assert sock.fileno() >= 0

    loop.run_until_complete(main())


def test_a_descriptor_has_one_transport(loop):
    async def main():
        async with endpoint() as (transport, _):
            sock = transport._sock
            with pytest.raises(RuntimeError, match="is used by transport <DatagramTransport"):
                loop._make_datagram_transport(sock, Peer())
            with pytest.raises(RuntimeError, match="is used by transport <DatagramTransport"):
                loop.add_reader(sock, print)

    loop.run_until_complete(main())


def test_waiter_and_extra(loop):
    async def main():
        waiter = loop.create_future()
        protocol = Peer()
        with plain() as sock:
            transport = loop._make_datagram_transport(
                sock, protocol, address=None, waiter=waiter, extra={"peername": "somebody"}
            )
            await waiter
            assert protocol.log == [("made",)]
            assert transport.get_extra_info("peername") == "somebody"
            assert transport.get_extra_info("sockname") == sock.getsockname()
            assert transport.get_extra_info("nothing", 5) == 5
            transport.close()
            await protocol.lost

    loop.run_until_complete(main())


def test_a_peername_that_cannot_be_judged(loop):
    class Broken:
        def __bool__(self):
            raise ZeroDivisionError("no")

    async def main():
        with plain() as sock, pytest.raises(ZeroDivisionError):
            loop._make_datagram_transport(sock, Peer(), extra={"peername": Broken()})
        with plain() as sock, pytest.raises(ZeroDivisionError):
            loop._make_datagram_transport(sock, Peer(), Broken())
        await asyncio.sleep(0.001)

    loop.run_until_complete(main())


def test_the_socket_of_extra_info(loop):
    async def main():
        async with endpoint() as (transport, _):
            sock = transport.get_extra_info("socket")
            assert sock.family == socket.AF_INET
            assert sock.type == socket.SOCK_DGRAM
            assert sock.getsockname() == transport.get_extra_info("sockname")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)

    loop.run_until_complete(main())


def test_attributes(loop):
    async def main():
        remote = nobody()
        async with endpoint(remote_addr=remote) as (transport, _):
            sent = []
            transport.sendto = sent.append
            transport.sendto(b"x")
            transport.note = "mine"
            assert (sent, transport.note) == ([b"x"], "mine")
            del transport.sendto
            assert transport._address == remote
            assert transport._loop is loop

    loop.run_until_complete(main())


def test_max_size_cuts(loop):
    async def main():
        async with endpoint() as (transport, protocol):
            assert transport.max_size == 256 * 1024
            transport.max_size = 3
            with plain() as sock:
                for _ in range(20):
                    sock.sendto(b"12345", transport.get_extra_info("sockname"))
            while len(protocol.log) < 21:
                await asyncio.sleep(0.001)
            assert protocol.log[1:] == [("datagram", b"123")] * 20

    loop.run_until_complete(main())


def test_weak_references_and_cycles(loop):
    async def main():
        transport, protocol = await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))
        transport.cycle = transport
        transport.sendto(b"x", nobody())
        reference = weakref.ref(transport)
        transport.close()
        await protocol.lost
        await asyncio.sleep(0.001)
        del transport, protocol
        gc.collect()
        assert reference() is None

    loop.run_until_complete(main())


def test_an_unknown_family_goes_through_the_socket(loop):
    # Kernel messages: a request for the links, answered by at least one datagram.
    async def main():
        netlink = getattr(socket, "AF_NETLINK", None)
        if netlink is None:
            pytest.skip("a family of Linux")
        sock = socket.socket(netlink, socket.SOCK_DGRAM)
        sock.bind((0, 0))

        class Notes(Peer):
            def datagram_received(self, data, addr):
                self.log.append((len(data) > 16, addr))

        async with endpoint(Notes, sock=sock) as (transport, protocol):
            request = b"\x14\0\0\0\x12\0\x01\x03\x01\0\0\0" + bytes(8)
            transport.sendto(request, (0, 0))
            while len(protocol.log) < 2:
                await asyncio.sleep(0.001)
            assert protocol.log[1] == (True, (0, 0))

    loop.run_until_complete(main())


@pytest.mark.parametrize("where", ["class", "instance"])
def test_a_socket_with_methods_of_its_own_is_asked(loop, where):
    """As those of proxies are, which put an address of their own before each datagram."""

    def sendto(sock, data, address):
        return socket.socket.sendto(sock, b"to:" + data, address)

    def recvfrom(sock, size):
        data, address = socket.socket.recvfrom(sock, size)
        return b"from:" + data, address

    class Wrapping(socket.socket):
        """Has room for attributes."""

    async def main():
        sock = Wrapping(socket.AF_INET, socket.SOCK_DGRAM)
        if where == "class":
            Wrapping.sendto, Wrapping.recvfrom = sendto, recvfrom
        else:
            sock.sendto = functools.partial(sendto, sock)
            sock.recvfrom = functools.partial(recvfrom, sock)
        sock.bind(("127.0.0.1", 0))
        async with endpoint(sock=sock) as (transport, protocol):
            with plain() as peer:
                transport.sendto(b"x", peer.getsockname())
                assert peer.recv(9) == b"to:x"
                peer.sendto(b"y", sock.getsockname())
                await until(lambda: ("datagram", b"from:y") in protocol.log)
        assert sock.fileno() == -1

    loop.run_until_complete(main())
