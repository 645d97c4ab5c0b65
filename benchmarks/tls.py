"""TLS servers and their peers, blocking sockets of the ssl module in another process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from functools import cache
from pathlib import Path

from bulk import TIMEOUT_S, Sink, Source, give, take
from harness import Benchmark, Unavailable
from serving import BUILD, Clock, PeerLoad, in_slices, main
from tcp import Echo

CERTIFICATE = BUILD / "localhost.pem"
AUTHORITY = BUILD / "authority.pem"
CONNECTIONS = 10
MESSAGE = bytes(1024)


@cache
def make_certificate() -> None:
    """A certificate of 127.0.0.1 and its authority's, made once."""
    if CERTIFICATE.exists() and AUTHORITY.exists():
        return
    try:
        import trustme
    except ImportError as error:
        raise Unavailable(f"no certificate: {error}") from error
    BUILD.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(AUTHORITY))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(CERTIFICATE))


def server_context() -> ssl.SSLContext:
    """The server's half, with the ssl module's own choice of versions and ciphers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_context() -> ssl.SSLContext:
    """The client's half, which verifies as any client does."""
    return ssl.create_default_context(cafile=str(AUTHORITY))


def connect(address: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection whose handshake is done."""
    plain = socket.create_connection(("127.0.0.1", int(address)), TIMEOUT_S)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


async def listen(protocol: Callable[[], asyncio.Protocol]) -> tuple[str, object]:
    """A TLS server of this protocol on 127.0.0.1."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=1024, ssl=server_context())
    return str(server.sockets[0].getsockname()[1]), server


async def echo(_folder: Path) -> tuple[str, object]:
    return await listen(Echo)


async def sends(_folder: Path) -> tuple[str, object]:
    return await listen(Source)


async def receives(_folder: Path) -> tuple[str, object]:
    return await listen(Sink)


def ask(address: str, clock: Clock, requests: int) -> float:
    """A message to each connection, then an answer from each, and so on."""
    context = client_context()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(address, context)) for _ in range(CONNECTIONS)]

        def exchange(count: int) -> None:
            for _ in range(count // CONNECTIONS):
                for connection in connections:
                    connection.sendall(MESSAGE)
                for connection in connections:
                    receive_answer(connection)

        # Whole rounds only.
        return in_slices(clock, max(requests, 10 * CONNECTIONS), exchange)


def receive_answer(connection: ssl.SSLSocket) -> None:
    """All of an answer."""
    left = len(MESSAGE)
    while left > 0:
        answer = connection.recv(left)
        if not answer:
            raise ConnectionError("the server closed a connection")
        left -= len(answer)


def churn(address: str, clock: Clock, connections: int) -> float:
    """Connect, one message, its answer, close with close_notify both ways."""
    context = client_context()

    def visit(count: int) -> None:
        for _ in range(count):
            connection = connect(address, context)
            connection.sendall(MESSAGE)
            receive_answer(connection)
            # Loops differ in whether they wait for the peer's close_notify.
            with contextlib.suppress(OSError):
                connection.unwrap()
            connection.close()

    return in_slices(clock, connections, visit)


def take_tls(address: str, clock: Clock, mib: int) -> float:
    with connect(address, client_context()) as connection:
        return take(connection, clock, mib)


def give_tls(address: str, clock: Clock, mib: int) -> float:
    with connect(address, client_context()) as connection:
        return give(connection, clock, mib)


def benchmark(name: str, kind: str, peer: str, about: str, count: int) -> Benchmark:
    """One row of the table."""
    measure = PeerLoad("tls.py", kind, count, peer, prepare=make_certificate)
    return Benchmark(name, about, "ns", measure, judge="median")


BENCHMARKS = [
    benchmark(
        "tls_echo_1k",
        "echo",
        "ask",
        f"Protocol echo {len(MESSAGE)} B on {CONNECTIONS} connections, server CPU per request",
        10_000,
    ),
    benchmark("tls_bulk_send", "sends", "take_tls", "the server sends, server CPU per MiB", 300),
    benchmark(
        "tls_bulk_receive", "receives", "give_tls", "the server receives, server CPU per MiB", 300
    ),
    benchmark(
        "tls_churn",
        "echo",
        "churn",
        "handshake, echo 1 KiB, close_notify, one by one; server CPU per connection",
        400,
    ),
]


if __name__ == "__main__":
    main(
        {"echo": echo, "sends": sends, "receives": receives},
        {"ask": ask, "churn": churn, "take_tls": take_tls, "give_tls": give_tls},
    )
