"""Making connections: each parameter does what it does on stock asyncio.

What only one row of the table of features asks for is in features/.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
import sys
import tempfile

import pytest
from network import until
from outcome import AwaitedCases, on_both
from setups import (
    LINUX,
    Accepted,
    Notes,
    address,
    ending,
    listening,
    open_sockets,
    refusal,
)

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = AwaitedCases()
case = CASES.awaited


def resolving(loop, *hosts, port=9):
    """Make the loop find these addresses for every name but a number."""

    async def getaddrinfo(host, port_, **options):
        found = []
        for each in hosts:
            v6 = ":" in each
            where = (each, port, 0, 0) if v6 else (each, port)
            family = socket.AF_INET6 if v6 else socket.AF_INET
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where))
        return found

    loop.getaddrinfo = getaddrinfo


# --- create_connection: which addresses, in which order

MIXED = ("::1", "::2", "::3", "127.0.0.2", "127.0.0.3", "127.0.0.4")
ORDERS = {
    "as found": {},
    "interleave 1": {"interleave": 1},
    "interleave 2": {"interleave": 2},
    "interleave 9": {"interleave": 9},
    "interleave 0, delay": {"interleave": 0, "happy_eyeballs_delay": 0.01},
    "delay": {"happy_eyeballs_delay": 0.01},
    "no delay at all": {"happy_eyeballs_delay": 0},
    "one family": {"family": socket.AF_INET},
    "from here": {"local_addr": ("127.0.0.1", 0)},
}


@case(*ORDERS)
async def order_of_attempts(loop, name):
    attempts = []

    async def sock_connect(sock, where):
        attempts.append(where[0])
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"not at {where[0]}")

    resolving(loop, *MIXED)
    loop.sock_connect = sock_connect
    return await refusal(loop.create_connection(Notes, "name", 9, **ORDERS[name])), attempts


@case("the same", "different", "one")
async def errors_of_all_attempts(loop, kind):
    async def sock_connect(sock, where):
        number = int(where[0][-1])
        text = "always the same" if kind == "the same" else f"number {number}"
        raise ConnectionRefusedError(errno.ECONNREFUSED, text)

    resolving(loop, *(["127.0.0.2"] if kind == "one" else MIXED[3:]))
    loop.sock_connect = sock_connect
    seen = [await refusal(loop.create_connection(Notes, "name", 9, happy_eyeballs_delay=0.01))]
    for options in ({}, {"happy_eyeballs_delay": 0.01}) if sys.version_info >= (3, 12) else ():
        try:
            await loop.create_connection(Notes, "name", 9, all_errors=True, **options)
        except BaseExceptionGroup as group:  # noqa: F821 - from 3.11 on
            seen += [f"{type(group).__name__} {group}", *map(repr, group.exceptions)]
    return seen


@case(BaseException, ValueError, asyncio.CancelledError)
async def attempts_that_end_otherwise(loop, kind):
    """Only an OSError makes it try the next address."""
    attempts = []

    async def sock_connect(sock, where):
        attempts.append(where)
        raise kind("no OSError")

    resolving(loop, "127.0.0.2", "127.0.0.3")
    loop.sock_connect = sock_connect
    before = open_sockets()
    try:
        await loop.create_connection(Notes, "name", 9)
    except BaseException as error:
        return f"{type(error).__name__}: {error}", attempts, open_sockets() - before


@case()
async def no_address_at_all(loop):
    resolving(loop)
    return [
        await refusal(loop.create_connection(Notes, "name", 9)),
        await refusal(loop.create_connection(Notes, "name", 9, local_addr=("name", 0))),
        await refusal(loop.create_connection(Notes, "name", 9, happy_eyeballs_delay=0.1)),
    ]


@contextlib.contextmanager
def full_listener():
    """An address that does not answer: connections wait for ever where nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.2", 0), backlog=0))
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()


@case(needs=LINUX)
async def a_slow_address_is_overtaken(loop):
    """The attempt that is not needed any more is cancelled, its socket closed."""
    with full_listener() as slow, socket.create_server(("127.0.0.3", slow[1])):
        resolving(loop, slow[0], "127.0.0.3", port=slow[1])
        before = open_sockets()
        transport, protocol = await loop.create_connection(
            Notes, "name", slow[1], happy_eyeballs_delay=0.03
        )
        peer = transport.get_extra_info("peername")[0]
        left = open_sockets() - before
        await ending(transport, protocol)
        return peer, left, open_sockets() - before, protocol.events


@case({}, {"happy_eyeballs_delay": 0.01}, needs=LINUX)
async def cancelled_while_it_connects(loop, options):
    with full_listener() as slow:
        resolving(loop, slow[0], slow[0], port=slow[1])
        before = open_sockets()
        connecting = asyncio.ensure_future(loop.create_connection(Notes, "name", 9, **options))
        await asyncio.sleep(0.03)
        connecting.cancel()
        await asyncio.wait([connecting])
        return connecting.cancelled(), open_sockets() - before


@case()
async def cancelled_while_it_looks_up(loop):
    entered = asyncio.Event()

    async def getaddrinfo(*arguments, **options):
        entered.set()
        await asyncio.Event().wait()

    loop.getaddrinfo = getaddrinfo
    connecting = asyncio.ensure_future(loop.create_connection(Notes, "name", 9))
    await entered.wait()
    connecting.cancel()
    await asyncio.wait([connecting])
    return connecting.cancelled()


@case({"interleave": "x"}, {"happy_eyeballs_delay": "x"}, {"interleave": -1}, {"nonsense": 1})
async def wrong_options(loop, options):
    resolving(loop, "127.0.0.2", "::1", port=1)
    return (await refusal(loop.create_connection(Notes, "name", 1, **options))).partition(".")[0]


# --- create_connection: from where

LOCALS = {
    "address": ("127.0.0.2", 0),
    "any port of any address": ("0.0.0.0", 0),
    "no such address here": ("192.0.2.1", 0),
    "IPv6 for IPv4": ("::1", 0),
    "no such name": ("no such host", 0),
    "list": ["127.0.0.2", 0],
    "port only": ("127.0.0.2",),
    "number": 5,
    "port out of range": ("127.0.0.1", 70000),
    "None": None,
    "all of it": (None, 0),
}


@case(*LOCALS)
async def local_address(loop, name):
    async with listening(0) as (server, _, _):
        try:
            transport, protocol = await loop.create_connection(
                Notes, *address(server), local_addr=LOCALS[name]
            )
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        await ending(transport, protocol)
        return transport.get_extra_info("sockname")[0]


@case()
async def local_port_in_use(loop):
    async with listening(1) as (server, _, ((transport, _),)):
        where = transport.get_extra_info("sockname")
        return await refusal(loop.create_connection(Notes, *address(server), local_addr=where))


# --- sock=

SOCKETS = {
    "number": lambda stack: 5,
    "text": lambda stack: "socket",
    "object": lambda stack: object,
    "closed": lambda stack: closed(),
    "not connected": lambda stack: socket.socket(),
    "bound": lambda stack: bound(),
    "listening": lambda stack: socket.create_server(("127.0.0.1", 0)),
    "unix, not connected": lambda stack: socket.socket(socket.AF_UNIX),
    "unix datagrams": lambda stack: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    "datagrams": lambda stack: socket.socket(type=socket.SOCK_DGRAM),
    "packets": lambda stack: pair(stack, socket.SOCK_SEQPACKET),
    "pair": lambda stack: pair(stack),
    "TransportSocket": lambda stack: asyncio.trsock.TransportSocket(pair(stack)),
    "TLS": lambda stack: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_socket(
        socket.socket(), server_side=True
    ),
}


def closed():
    sock = socket.socket()
    sock.close()
    return sock


def bound():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def pair(stack, kind=socket.SOCK_STREAM):
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    stack.enter_context(theirs)
    return ours


TAKERS = {
    "create_connection": lambda loop, sock: loop.create_connection(Notes, sock=sock),
    "create_unix_connection": lambda loop, sock: loop.create_unix_connection(Notes, sock=sock),
    "connect_accepted_socket": lambda loop, sock: loop.connect_accepted_socket(Notes, sock),
    "create_server": lambda loop, sock: loop.create_server(Notes, sock=sock),
    "create_unix_server": lambda loop, sock: loop.create_unix_server(Notes, sock=sock),
    "start_server": lambda loop, sock: asyncio.start_server(print, sock=sock),
    "open_connection": lambda loop, sock: asyncio.open_connection(sock=sock),
}


# A TransportSocket has no close(): whoever makes a transport of it on asyncio cannot end it.
GIVEN = [
    (taker, name)
    for taker in TAKERS
    for name in SOCKETS
    if name != "TransportSocket" or "server" in taker
]


@case(*GIVEN)
async def given_socket(loop, what):
    """Whoever cannot use a socket says so, and who can gets it non-blocking."""
    taker, name = what
    with contextlib.ExitStack() as stack:
        sock = SOCKETS[name](stack)
        try:
            value = await TAKERS[taker](loop, sock)
        except Exception as error:
            return f"{type(error).__name__}: {error}", getattr(error, "errno", None)
        finally:
            stack.callback(getattr(sock, "close", int))
        seen = [sock.gettimeout()]
        if isinstance(value, tuple):
            first, second = value
            transport = first if taker != "open_connection" else second.transport
            seen += [transport.get_extra_info("peername"), transport.is_closing()]
            # What is not connected finds out.
            await asyncio.sleep(0.005)
            if isinstance(second, Notes):
                seen += second.events
            transport.abort()
            await asyncio.sleep(0.005)
        else:
            seen += [value.is_serving(), len(value.sockets)]
            value.close()
        return seen, getattr(sock, "fileno", int)()


PLACES = {
    "host and sock": lambda loop, sock: loop.create_connection(Notes, "127.0.0.1", sock=sock),
    "port and sock": lambda loop, sock: loop.create_connection(Notes, port=5, sock=sock),
    "only a port": lambda loop, sock: loop.create_connection(Notes, port=1),
    "only a host": lambda loop, sock: loop.create_connection(Notes, "127.0.0.1"),
    "serve host and sock": lambda loop, sock: loop.create_server(Notes, "127.0.0.1", sock=sock),
    "serve port and sock": lambda loop, sock: loop.create_server(Notes, port=5, sock=sock),
    "serve nowhere": lambda loop, sock: loop.create_server(Notes),
    "serve host only": lambda loop, sock: loop.create_server(Notes, "127.0.0.1"),
    "path and sock": lambda loop, sock: loop.create_unix_connection(Notes, "path", sock=sock),
    "serve path and sock": lambda loop, sock: loop.create_unix_server(Notes, "path", sock=sock),
    "no factory": lambda loop, sock: loop.create_connection(None, sock=sock),
    "TLS times": lambda loop, sock: loop.connect_accepted_socket(
        Notes, sock, ssl_handshake_timeout=1
    ),
    "hostname": lambda loop, sock: loop.create_unix_connection(
        Notes, sock=sock, server_hostname="x"
    ),
    "serve TLS times": lambda loop, sock: loop.create_server(
        Notes, "127.0.0.1", 0, ssl_handshake_timeout=1
    ),
    "serve unix TLS": lambda loop, sock: loop.create_unix_server(Notes, "path", ssl=True),
    "serve unix TLS times": lambda loop, sock: loop.create_unix_server(
        Notes, "path", ssl_handshake_timeout=1
    ),
    "serve TLS of text": lambda loop, sock: loop.create_server(Notes, "127.0.0.1", 0, ssl="x"),
    "server_hostname of text": lambda loop, sock: loop.create_connection(
        Notes, sock=sock, server_hostname="x"
    ),
    "TLS without a name": lambda loop, sock: loop.create_unix_connection(
        Notes, sock=sock, ssl=True
    ),
}


@case(*PLACES)
async def wrong_combination(loop, name):
    with contextlib.ExitStack() as stack:
        sock = pair(stack)
        try:
            return await refusal(PLACES[name](loop, sock))
        finally:
            sock.close()


# --- what a connection that is made looks like


@case("create_connection", "connect_accepted_socket", "server", "unix", "unix server")
async def extra_information(loop, way):
    with contextlib.ExitStack() as stack:
        async with listening(1) as (_, (accepted,), ((transport, _),)):
            if way == "server":
                transport = accepted.transport
            elif way == "connect_accepted_socket":
                ours = pair(stack)
                transport, _ = await loop.connect_accepted_socket(Notes, ours)
            elif way.startswith("unix"):
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                taken = []
                unix = await loop.create_unix_server(lambda: Accepted(taken), f"{folder}/s")
                transport, _ = await loop.create_unix_connection(Notes, f"{folder}/s")
                await until(lambda: taken and taken[0].transport)
                stack.callback(unix.close)
                stack.callback(transport.abort)
                if way == "unix server":
                    transport = taken[0].transport
            sock = transport.get_extra_info("socket")
            seen = [
                sorted(transport._extra),
                type(transport.get_extra_info("sockname")).__name__,
                type(transport.get_extra_info("peername")).__name__,
                sock.gettimeout(),
                sock.get_inheritable(),
                sock.family,
                sock.proto,
            ]
            if sock.family == socket.AF_INET:
                seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
            transport.abort()
            await asyncio.sleep(0.005)
            return seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case):
    stock, ours = on_both(case)
    assert ours.lines() == stock.lines()
