"""What the tests of TLS share: certificates of every kind, and a peer that does TLS by hand."""

import asyncio
import datetime
import functools
import socket
import ssl
import sys

import pytest
import trustme

HOST = "localhost"

new_design = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio's TLS of 3.10 is another, and is used as it is"
)


@functools.cache
def authority(name="known"):
    return trustme.CA(organization_name=f"{name} authority")


@functools.cache
def server_context(kind="good"):
    """That of new_server_context(), which the tests share."""
    return new_server_context(kind)


def new_server_context(kind="good"):
    """A server's context with a certificate that is good, expired, for another host, or signed
    by nobody that clients know."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if kind == "self-signed":
        stranger = authority("self")
        with stranger.cert_pem.tempfile() as cert, stranger.private_key_pem.tempfile() as key:
            context.load_cert_chain(cert, key)
        return context
    issuer = authority("unknown") if kind == "unknown CA" else authority()
    host = "elsewhere.example" if kind == "wrong host" else HOST
    options = {}
    if kind == "expired":
        options["not_after"] = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
        options["not_before"] = datetime.datetime(2019, 1, 1, tzinfo=datetime.timezone.utc)
    issuer.issue_cert(host, "127.0.0.1", **options).configure_cert(context)
    return context


def client_context(**options):
    """A client's context that verifies, by the authority that good servers are signed by."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    for name, value in options.items():
        setattr(context, name, value)
    return context


def mutual_contexts():
    """Server and client that both show certificates; the client's has to be loaded."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(HOST).configure_cert(server)
    authority().configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    return server, client_context()


class Peer:
    """One end of a connection, by ssl's memory BIOs: every byte is in the test's hands."""

    def __init__(self, sock, context, *, server_side=True, **options):
        sock.setblocking(False)
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        if not server_side:
            options.setdefault("server_hostname", HOST)
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, **options
        )

    async def flush(self):
        if self.outgoing.pending:
            await self.loop.sock_sendall(self.sock, self.outgoing.read())

    async def receive(self):
        """Bytes of the peer into TLS; False at their end."""
        data = await asyncio.wait_for(self.loop.sock_recv(self.sock, 1 << 16), 10)
        self.incoming.write(data)
        if not data:
            self.incoming.write_eof()
        return bool(data)

    async def run(self, function, *args):
        """The result of a function of the SSLObject, with as much input as it needs."""
        while True:
            try:
                result = function(*args)
            except ssl.SSLWantReadError:
                await self.flush()
                await self.receive()
            else:
                await self.flush()
                return result

    async def handshake(self):
        await self.run(self.tls.do_handshake)

    async def send(self, data):
        await self.run(self.tls.write, data)

    async def read(self, size):
        data = b""
        while len(data) < size:
            piece = await self.run(self.tls.read, size - len(data))
            if not piece:
                break
            data += piece
        return data

    def records(self, *pieces):
        """Each piece as one record, not sent."""
        for piece in pieces:
            self.tls.write(piece)
        return self.outgoing.read()

    async def close(self):
        """close_notify, and nothing more."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        await self.flush()


def socket_pair():
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]
