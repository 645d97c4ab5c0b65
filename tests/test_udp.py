"""csrc/udp.c: datagrams arrive, leave and fail as on stock asyncio, on which most cases run too."""

import asyncio
import contextlib
import contextvars
import gc
import os
import re
import socket
import struct
import sys
import tempfile

import ouroloop
import pytest
from network import until
from outcome import Cases, on_both

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each
NOTE = contextvars.ContextVar("NOTE", default="unset")
EMPTY_IS_SENT = sys.version_info >= (3, 13)


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


def program(function):
    """A case: a coroutine function of a loop."""

    def run(loop, *args):
        async def main():
            return await asyncio.wait_for(function(loop, *args), 10)

        return loop.run_until_complete(main())

    run.__name__ = function.__name__
    return run


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


# One after the other, as long as they come.


@case
@program
async def datagrams_in_order(loop):
    async with endpoint() as (receiver, protocol):
        with plain() as sock:
            for n in range(50):
                sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
            await until(lambda: len(protocol.log) == 51)
    return protocol.log


@case
@program
async def sizes(loop):
    async with endpoint() as (receiver, protocol):
        with plain() as sock:
            for size in (0, 1, 512, 65000, 0, 65507, 3):
                sock.sendto(b"x" * size, receiver.get_extra_info("sockname"))
            await until(lambda: len(protocol.log) == 8)
    return [len(entry[1]) for entry in protocol.log[1:]]


@case
@program
async def each_has_a_turn_of_its_own(loop):
    # Whoever waits for one datagram has run before the next is handed on.
    class OneByOne(Peer):
        def datagram_received(self, data, addr):
            self.waiter.set_result(data)

    async with endpoint(OneByOne) as (receiver, protocol):
        protocol.waiter = loop.create_future()
        got = []
        with plain() as sock:
            for n in range(40):
                sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
        while len(got) < 40:
            got.append(await protocol.waiter)
            protocol.waiter = loop.create_future()
    return got


@case
@program
async def other_callbacks_run_between_two(loop):
    async with endpoint() as (receiver, _):
        with plain() as sock:
            for n in range(30):
                sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))

        class Interleaved(Peer):
            def datagram_received(self, data, addr):
                self.log.append(data)
                loop.call_soon(self.log.append, b"after " + data)

        log = []
        receiver.set_protocol(Interleaved(log))
        await until(lambda: len(log) == 60)
    return log


@cases("close", "abort", "pause_reading", "raise", "swap")
@program
async def in_the_middle(loop, action):
    async with endpoint() as (receiver, _):
        other = Peer()

        class Ends(Peer):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                if data != b"10":
                    return
                if action == "raise":
                    raise ZeroDivisionError("in datagram_received")
                if action == "swap":
                    receiver.set_protocol(other)
                else:
                    getattr(receiver, action)()

        first = Ends()
        receiver.set_protocol(first)
        with plain() as sock:
            for n in range(25):
                sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
        if action in ("close", "abort"):
            await first.lost
        elif action == "pause_reading" and sys.version_info < (3, 12):
            pass  # asyncio's cannot be paused.
        elif action == "pause_reading":
            await until(lambda: len(first.log) == 11)
            await asyncio.sleep(0.01)
            first.log.append("paused")
            receiver.resume_reading()
            await until(lambda: len(first.log) == 26)
        else:
            await until(lambda: len(first.log) + len(other.log) == 25)
        return (
            "unpausable"
            if sys.version_info < (3, 12) and action == "pause_reading"
            else (
                first.log,
                other.log,
            )
        )


@case
def input_waits_behind_callbacks(loop):
    log = []

    class Notes(Peer):
        def datagram_received(self, data, addr):
            log.append(data)

    async def make():
        return await loop.create_datagram_endpoint(Notes, local_addr=("127.0.0.1", 0))

    transport, protocol = loop.run_until_complete(make())
    loop.run_until_complete(asyncio.sleep(0.001))
    with plain() as sock:
        for n in range(20):
            sock.sendto(b"%d" % n, transport.get_extra_info("sockname"))
            loop.call_soon(log.append, "before")
            loop.call_soon(lambda: loop.call_soon(log.append, "after"))
            loop.stop()
            loop.run_forever()
            loop.run_until_complete(asyncio.sleep(0.001))
    transport.close()
    loop.run_until_complete(protocol.lost)
    return log


def test_paused_with_datagrams_taken_already(loop):
    async def main():
        class Pauses(Peer):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                self.transport.pause_reading()
                loop.call_soon(self.transport.resume_reading)

        async with endpoint(Pauses) as (receiver, protocol):
            with plain() as sock:
                for n in range(64):
                    sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
            await until(lambda: len(protocol.log) == 65)
            assert protocol.log[1:] == [("datagram", b"%d" % n) for n in range(64)]
            receiver.pause_reading()
            assert not receiver.is_reading()

    loop.run_until_complete(main())


def test_datagrams_survive_a_stopped_loop(loop):
    async def make():
        return await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))

    receiver, protocol = loop.run_until_complete(make())
    with plain() as sock:
        for n in range(64):
            sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
    for _ in range(200):
        loop.stop()
        loop.run_forever()
    assert protocol.log[1:] == [("datagram", b"%d" % n) for n in range(64)]
    receiver.close()
    loop.run_until_complete(protocol.lost)


def test_a_loop_that_closes_drops_what_it_has_taken():
    loop = ouroloop.new_event_loop()

    async def make():
        return await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))

    receiver, protocol = loop.run_until_complete(make())
    with plain() as sock:
        for n in range(40):
            sock.sendto(b"%d" % n, receiver.get_extra_info("sockname"))
    while len(protocol.log) < 8:
        loop.stop()
        loop.run_forever()
    with pytest.warns(ResourceWarning, match="unclosed transport <DatagramTransport fd="):
        loop.close()
    assert len(protocol.log) < 40
    with pytest.raises(AttributeError):
        receiver.sendto(b"x", ("127.0.0.1", 9))


# Addresses.


@cases(socket.AF_INET, socket.AF_INET6)
@program
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


@cases("path", "abstract", "none")
@program
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


@case
@program
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


@case
@program
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


@case
@program
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


@cases(*BAD_ADDRESSES)
@program
async def send_to_bad_address(loop, address):
    async with endpoint() as (transport, protocol):
        transport.sendto(b"x", address)
        await asyncio.sleep(0.01)
        return protocol.log, transport.is_closing()


@case
@program
async def send_without_address(loop):
    async with endpoint() as (transport, protocol):
        transport.sendto(b"x")
        await protocol.lost
        return protocol.log


@cases("", "0.0.0.0", "127.0.0.1", b"127.0.0.1", "127.1", "localhost", bytearray(b"127.0.0.1"))
@program
async def send_to_host(loop, host):
    async with endpoint() as (transport, protocol):
        with plain(address=("0.0.0.0", 0)) as sock:
            transport.sendto(b"hello", (host, sock.getsockname()[1]))
            transport.sendto(b"again", addr=(host, sock.getsockname()[1]))
            return sock.recv(10), sock.recv(10), protocol.log


@cases(
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
@program
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


@case
@program
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


@case
@program
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


# A remote address.


@cases(None, "same", "equal", "other", "nonsense")
@program
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


@case
@program
async def a_broken_comparison(loop):
    class Broken:
        def __eq__(self, other):
            raise ZeroDivisionError("no")

        __hash__ = None

    async with endpoint(remote_addr=nobody()) as (transport, _):
        transport.sendto(b"x", Broken())


@case
@program
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


@case
@program
async def shared_port(loop):
    async with endpoint(local_addr=("127.0.0.1", 0), reuse_port=True) as (first, _):
        address = first.get_extra_info("sockname")
        async with endpoint(local_addr=address, reuse_port=True) as (second, _):
            return second.get_extra_info("sockname") == address


@case
@program
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


@case
@program
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


# Errors.


@case
@program
async def refused(loop):
    async with endpoint(remote_addr=nobody()) as (transport, protocol):
        transport.sendto(b"one")
        await until(lambda: len(protocol.log) == 2)
        transport.sendto(b"two")
        await until(lambda: len(protocol.log) == 3)
        return protocol.log, transport.is_closing()


@case
@program
async def too_long(loop):
    with plain() as sock:
        async with endpoint(remote_addr=sock.getsockname()) as (transport, protocol):
            transport.sendto(b"x" * 70_000)
            transport.sendto(b"y")
            return protocol.log, sock.recv(10), transport.is_closing()


@cases(ZeroDivisionError, SystemExit, KeyboardInterrupt)
@program
async def error_received_raises_in_sendto(loop, error):
    class Raises(Peer):
        def error_received(self, exc):
            raise error("in error_received")

    async with endpoint(Raises) as (transport, _):
        transport.sendto(b"x" * 70_000, ("127.0.0.1", 9))


@cases(ZeroDivisionError, SystemExit, KeyboardInterrupt)
def error_received_raises_in_the_loop(loop, error):
    log = []

    class Raises(Peer):
        def error_received(self, exc):
            log.append(type(exc).__name__)
            raise error("in error_received")

    async def main():
        transport, _ = await loop.create_datagram_endpoint(Raises, remote_addr=nobody())
        transport.sendto(b"x")
        try:
            await asyncio.sleep(0.02)
            return log, transport.is_closing()
        finally:
            transport.abort()

    task = loop.create_task(main())
    try:
        return loop.run_until_complete(task)
    except (SystemExit, KeyboardInterrupt) as exc:
        result = repr(exc), loop.run_until_complete(task)
        loop.run_until_complete(asyncio.sleep(0))
        return result


@cases(SystemExit, KeyboardInterrupt)
def datagram_received_leaves_the_loop(loop, error):
    class Raises(Peer):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"1":
                raise error("in datagram_received")

    async def make():
        return await loop.create_datagram_endpoint(Raises, local_addr=("127.0.0.1", 0))

    transport, protocol = loop.run_until_complete(make())
    with plain() as sock:
        for n in range(5):
            sock.sendto(b"%d" % n, transport.get_extra_info("sockname"))
    try:
        loop.run_until_complete(asyncio.sleep(0.05))
    except (SystemExit, KeyboardInterrupt) as exc:
        protocol.log.append(repr(exc))
    loop.run_until_complete(asyncio.sleep(0.05))
    transport.close()
    loop.run_until_complete(protocol.lost)
    return protocol.log


@cases("connection_made", "connection_lost")
@program
async def callback_raises(loop, name):
    def fail(self, *args):
        raise ZeroDivisionError(f"in {name}")

    factory = type("Raises", (Peer,), {name: fail})
    transport, protocol = await loop.create_datagram_endpoint(factory, local_addr=("127.0.0.1", 0))
    with plain() as sock:
        sock.sendto(b"x", transport.get_extra_info("sockname"))
        await asyncio.sleep(0.01)
    transport.close()
    await asyncio.sleep(0.01)
    return protocol.log, transport.is_closing(), transport.get_extra_info("socket").fileno()


@case
@program
async def a_socket_made_blocking_again(loop):
    # What is there is received; a read never waits for more.
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        async with endpoint(sock=sock) as (_, protocol):
            sock.setblocking(True)
            with plain() as peer:
                for n in range(20):
                    peer.sendto(b"%d" % n, sock.getsockname())
                await until(lambda: len(protocol.log) == 21)
    return protocol.log


@case
@program
async def a_protocol_without_methods(loop):
    class Bare:
        def connection_made(self, transport):
            pass

    transport, _ = await loop.create_datagram_endpoint(Bare, local_addr=("127.0.0.1", 0))
    with plain() as sock:
        sock.sendto(b"x", transport.get_extra_info("sockname"))
        await asyncio.sleep(0.01)
    transport.abort()
    await asyncio.sleep(0.01)


# What may be sent.


@cases(
    b"bytes",
    bytearray(b"bytearray"),
    memoryview(b"memoryview"),
    memoryview(b"with a step")[::2],
    memoryview(bytearray(b"4 bytes each")).cast("I"),
    b"",
    bytearray(),
    memoryview(b""),
    type("Bytes", (bytes,), {})(b"subclass"),
    "text",
    5,
    None,
    [b"x"],
)
@program
async def data_of_type(loop, data):
    with plain() as sock:
        async with endpoint(remote_addr=sock.getsockname()) as (transport, protocol):
            transport.sendto(data)
            transport.sendto(b"end")
            got = []
            if not transport.is_closing():
                while b"end" not in got:
                    got.append(sock.recv(100))
            return got, protocol.log


@case
@program
async def sendto_arguments(loop):
    async with endpoint() as (transport, _):
        texts = []
        for arguments, keywords in (
            ((), {}),
            ((b"x", None, 3), {}),
            ((b"x",), {"address": 5}),
            ((), {"addr": None}),
        ):
            with pytest.raises(TypeError) as caught:
                transport.sendto(*arguments, **keywords)
            texts.append(caught.type)
        transport.sendto(data=b"x", addr=nobody())
        return texts


@case
@program
async def data_that_waits_is_copied(loop):
    async with clogged() as (transport, _, drain):
        data = bytearray(b"before")
        transport.sendto(data)
        transport.sendto(memoryview(b"123456")[::2])
        data[:] = b"after "
        data.clear()
        got = []
        while len(got) < 2:
            got += drain()
            await asyncio.sleep(0.001)
        return got, transport.get_write_buffer_size() if sys.version_info[:2] != (3, 13) else 0


# Flow control and the end.


@case
@program
async def flow_control(loop):
    async with clogged() as (transport, protocol, drain):
        before = transport.get_write_buffer_size()
        transport.set_write_buffer_limits(high=before + 100, low=50)
        for _ in range(20):
            transport.sendto(b"0123456789")
        log = list(protocol.log)
        size = transport.get_write_buffer_size()
        got = []
        while len(got) < 20:
            got += drain()
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
        # 3.13.0 forgets to take the headers off again, and never resumes.
        end = (protocol.log, transport.get_write_buffer_size())
        return log, size, len(got), end if sys.version_info[:2] != (3, 13) else None


def test_headers_are_taken_off_again(loop):
    async def main():
        async with clogged() as (transport, protocol, drain):
            waiting = transport.get_write_buffer_size()
            header = 8 if EMPTY_IS_SENT else 0
            assert waiting == len(b"filler") + header
            transport.sendto(b"12")
            assert transport.get_write_buffer_size() == waiting + 2 + header
            transport.set_write_buffer_limits(high=5)
            assert protocol.log == [("made",), ("pause",)]
            got = []
            while not got:
                got += drain()
                await asyncio.sleep(0.001)
            assert got == [b"12"]
            assert transport.get_write_buffer_size() == 0
            assert protocol.log == [("made",), ("pause",), ("resume",)]

    loop.run_until_complete(main())


@case
@program
async def close_sends_what_waits(loop):
    async with clogged() as (transport, protocol, drain):
        transport.set_write_buffer_limits(high=0)
        transport.sendto(b"last")
        transport.close()
        transport.close()
        log = [list(protocol.log), transport.is_closing()]
        got = []
        while not protocol.lost.done():
            got += drain()
            await asyncio.sleep(0.001)
        # 3.13.0 has never taken the headers off.
        return got, log, protocol.log if sys.version_info[:2] != (3, 13) else None


@case
@program
async def abort_drops_what_waits(loop):
    async with clogged() as (transport, protocol, drain):
        transport.set_write_buffer_limits(high=0)
        transport.sendto(b"last")
        transport.abort()
        transport.abort()
        await protocol.lost
        return drain(), protocol.log, transport.is_closing()


@cases("sendto", "raise")
@program
async def in_resume_writing(loop, action):
    class Acts(Peer):
        def resume_writing(self):
            super().resume_writing()
            if action == "raise":
                raise ZeroDivisionError("in resume_writing")
            self.transport.sendto(b"more")

    if sys.version_info[:2] == (3, 13):
        return "never called on 3.13.0"
    async with clogged(Acts) as (transport, protocol, drain):
        transport.set_write_buffer_limits(high=0)
        got = []
        while ("resume",) not in protocol.log:
            got += drain()
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.005)
        return got + drain(), protocol.log, transport.is_closing()


@pytest.mark.parametrize("action", ["close", "abort"])
def test_end_in_resume_writing(loop, action):
    # asyncio calls connection_lost() twice then and reports its own AttributeError.
    class Ends(Peer):
        def resume_writing(self):
            super().resume_writing()
            getattr(self.transport, action)()

    async def main():
        async with clogged(Ends) as (transport, protocol, drain):
            transport.set_write_buffer_limits(high=0)
            while not protocol.lost.done():
                drain()
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)
            assert protocol.log == [("made",), ("pause",), ("resume",), ("lost", "NoneType")]
            transport.close()
            transport.abort()

    loop.run_until_complete(main())


@case
@program
async def pause_writing_raises(loop):
    class Raises(Peer):
        def pause_writing(self):
            raise ZeroDivisionError("in pause_writing")

    async with clogged(Raises) as (transport, protocol, _):
        transport.set_write_buffer_limits(high=0)
        return protocol.log, transport.is_closing()


@case
@program
async def the_receiver_of_what_waits_is_gone(loop):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "receiver")
        with plain(socket.AF_UNIX, path):
            transport, protocol = await loop.create_datagram_endpoint(
                Peer, family=socket.AF_UNIX, remote_addr=path
            )
            while transport.get_write_buffer_size() == 0:
                transport.sendto(b"filler")
            for n in range(3):
                transport.sendto(b"%d" % n)
        await until(lambda: len(protocol.log) == 5)
        await asyncio.sleep(0.01)
        log = list(protocol.log)
        transport.close()
        await asyncio.sleep(0.01)
        return log, protocol.log, transport.is_closing()


@cases("close", "abort")
@program
async def sendto_after(loop, action):
    with plain() as sock:
        async with endpoint(remote_addr=sock.getsockname()) as (transport, protocol):
            getattr(transport, action)()
            for _ in range(8):
                transport.sendto(b"late")
            await protocol.lost
            await asyncio.sleep(0)
            for _ in range(3):
                transport.sendto(b"later")
            with contextlib.suppress(BlockingIOError):
                sock.setblocking(False)
                return sock.recv(10)
            return protocol.log, transport._conn_lost


@cases("close", "abort")
@program
async def sendto_without_remote_address_after(loop, action):
    with plain() as sock:
        async with endpoint() as (transport, protocol):
            getattr(transport, action)()
            transport.sendto(b"late", sock.getsockname())
            await protocol.lost
            await asyncio.sleep(0)
            got = sock.recv(10)
            try:
                transport.sendto(b"later", sock.getsockname())
            except AttributeError as error:
                return got, str(error), protocol.log


def test_lost_datagrams_are_logged(loop, caplog):
    async def main():
        async with endpoint(remote_addr=nobody()) as (transport, protocol):
            transport.close()
            for _ in range(6):
                transport.sendto(b"x")
            await protocol.lost

    loop.run_until_complete(main())
    assert [r.getMessage() for r in caplog.records] == ["socket.send() raised exception."] * 2


@cases("close", "abort")
@program
async def closed_by_connection_made(loop, action):
    class Closes(Peer):
        def connection_made(self, transport):
            super().connection_made(transport)
            getattr(transport, action)()

    transport, protocol = await loop.create_datagram_endpoint(Closes, local_addr=("127.0.0.1", 0))
    await protocol.lost
    return protocol.log, transport.is_closing()


@case
@program
async def sent_in_connection_made(loop):
    with plain() as sock:

        class Sends(Peer):
            def connection_made(self, transport):
                transport.sendto(b"first")

        async with endpoint(Sends, remote_addr=sock.getsockname()):
            return sock.recv(10)


@case
def contexts(loop):
    log = []

    class Notes(Peer):
        def note(self, name):
            log.append((name, NOTE.get()))

        def connection_made(self, transport):
            self.note("made")

        def datagram_received(self, data, addr):
            self.note("datagram")
            NOTE.set("kept")

        def connection_lost(self, exc):
            self.note("lost")
            super().connection_lost(exc)

    async def main():
        NOTE.set("creator")
        transport, protocol = await loop.create_datagram_endpoint(
            Notes, local_addr=("127.0.0.1", 0)
        )
        NOTE.set("later")
        with plain() as sock:
            for n in range(3):
                sock.sendto(b"x", transport.get_extra_info("sockname"))
                await until(lambda n=n: len(log) == n + 2)
        NOTE.set("closer")
        transport.close()
        await protocol.lost
        return log

    return loop.run_until_complete(main())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, debug):
    stock, ours = on_both(case, debug=debug)
    # The classes are named in the texts of reports.
    lines = [re.sub(r"_Selector\w*Transport\.", "DatagramTransport.", x) for x in stock.lines()]
    assert ours.lines() == lines


def test_garbage_is_collected_in_the_middle(loop):
    async def main():
        class Collects(Peer):
            def datagram_received(self, data, addr):
                gc.collect()
                self.transport.sendto(data, addr)
                if data == b"19":
                    self.transport.close()
                    del self.transport

        transport, protocol = await loop.create_datagram_endpoint(
            Collects, local_addr=("127.0.0.1", 0)
        )
        address = transport.get_extra_info("sockname")
        del transport
        with plain() as sock:
            for n in range(30):
                sock.sendto(b"%d" % n, address)
            await protocol.lost
            assert [sock.recv(10) for _ in range(20)] == [b"%d" % n for n in range(20)]

    loop.run_until_complete(main())


def test_an_error_is_being_handled_while_the_protocol_is_told(loop):
    """So that logging.exception() shows it."""
    seen = []

    class Protocol(asyncio.DatagramProtocol):
        def error_received(self, exc):
            seen.append((exc, sys.exc_info()[1]))

    async def main():
        transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
        transport.sendto(b"x" * 70_000, ("127.0.0.1", 9))
        transport.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    ((error, handled),) = seen
    assert isinstance(error, OSError)
    assert handled is error


def test_an_audit_hook_may_refuse(run_python):
    run_python(
        [
            "-c",
            """if True:
    import asyncio, sys, ouroloop
    events = []
    def hook(event, args):
        if event == "socket.sendto":
            events.append(args[1])
            if args[1][1] == 10:
                raise ZeroDivisionError("no")
    class Peer(asyncio.DatagramProtocol):
        def connection_lost(self, exc):
            events.append(repr(exc))
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: events.append(context["message"]))
        transport, _ = await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))
        transport.sendto(b"x", ("127.0.0.1", 9))
        transport.sendto(b"x", ("127.0.0.1", 10))
        await asyncio.sleep(0)
    sys.addaudithook(hook)
    loop = ouroloop.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    assert events == [
        ("127.0.0.1", 9), ("127.0.0.1", 10), "Fatal write error on datagram transport",
        "ZeroDivisionError('no')",
    ], events
    """,
        ]
    )
