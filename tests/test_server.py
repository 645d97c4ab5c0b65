"""csrc/server.c: accepting connections."""

import asyncio
import contextvars
import errno
import fcntl
import functools
import logging
import os
import resource
import socket
import ssl
import sys

import pytest
from network import TIMEOUT, Recorder, read_all, turns, until

CERTIFICATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "localhost.pem")


class Accepted(Recorder):
    """Keeps every one of itself in the list that it is made with."""

    def __init__(self, all_of_them):
        super().__init__()
        all_of_them.append(self)


def listening(loop, factory, **options):
    return loop.create_server(factory, "127.0.0.1", 0, **options)


def address(server):
    return server.sockets[0].getsockname()


async def stop(server, protocols=()):
    server.close()
    for protocol in protocols:
        await until(lambda: hasattr(protocol, "transport"))  # noqa: B023
        protocol.transport.abort()
    await asyncio.wait_for(server.wait_closed(), TIMEOUT)
    await turns()


def test_a_connection(loop):
    async def main():
        protocols = []
        server = await listening(loop, lambda: Accepted(protocols))
        with socket.create_connection(address(server)) as client:
            client.setblocking(False)
            client.send(b"hello")
            await until(lambda: protocols and protocols[0].data == b"hello")
            transport = protocols[0].transport
            assert type(transport).__name__ == "StreamTransport"
            assert transport._server is server
            assert transport.get_extra_info("peername") == client.getsockname()
            transport.write(b"back")
            assert await read_all(client, 4) == b"back"
        assert await protocols[0].lost is None
        assert transport._server is None
        await stop(server)

    loop.run_until_complete(main())


def test_many_at_once(loop):
    async def main():
        protocols = []
        server = await listening(loop, lambda: Accepted(protocols), backlog=200)
        clients = [socket.create_connection(address(server)) for _ in range(150)]
        await until(lambda: len(protocols) == 150)
        for client in clients:
            client.send(b"x")
        await until(lambda: all(protocol.data == b"x" for protocol in protocols))
        for client in clients:
            client.close()
        for protocol in protocols:
            assert await protocol.lost is None
        await stop(server)

    loop.run_until_complete(main())


def test_the_accepted_descriptor(loop):
    async def main():
        protocols = []
        server = await listening(loop, lambda: Accepted(protocols))
        with socket.create_connection(address(server)):
            await until(lambda: protocols)
            await until(lambda: protocols[0].made.done())
            fd = protocols[0].transport._sock_fd
            assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
            assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            sock = protocols[0].transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await stop(server, protocols)

    loop.run_until_complete(main())


def test_unix_sockets(loop, tmp_path):
    async def main():
        protocols = []
        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(lambda: Accepted(protocols), path)
        transport, protocol = await loop.create_unix_connection(Recorder, path)
        transport.write(b"hello")
        await until(lambda: protocols and protocols[0].data == b"hello")
        protocols[0].transport.write(b"back")
        await until(lambda: protocol.data == b"back")
        transport.close()
        await protocols[0].lost
        await stop(server)

    loop.run_until_complete(main())


def test_closing_the_server_stops_accepting(loop):
    async def main():
        protocols = []
        server = await listening(loop, lambda: Accepted(protocols))
        where = address(server)
        await stop(server)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where)
        assert protocols == []
        assert loop._open_handles() == []

    loop.run_until_complete(main())


def test_closing_it_while_connections_wait(loop, reports):
    """In the factory of the first of them, whom asyncio's Server does not take then either."""

    async def main():
        protocols = []

        def factory():
            server.close()
            return Accepted(protocols)

        server = await listening(loop, factory)
        clients = [socket.create_connection(address(server)) for _ in range(5)]
        await until(lambda: protocols)
        for client in clients:
            with client:
                client.setblocking(False)
                try:
                    assert await read_all(client) == b""
                except ConnectionResetError:
                    pass  # Whom the kernel alone had accepted.
        assert len(protocols) == 1
        assert protocols[0].calls == []
        await stop(server)
        assert len(reports.take()) == loop.get_debug()

    loop.run_until_complete(main())


def test_a_server_that_waits_to_be_started(loop):
    async def main():
        protocols = []
        server = await listening(loop, lambda: Accepted(protocols), start_serving=False)
        assert not server.is_serving()
        await server.start_serving()
        with socket.create_connection(address(server)):
            await until(lambda: protocols)
        await protocols[0].lost
        await stop(server)

    loop.run_until_complete(main())


# --- errors


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_in_the_factory(loop, reports, debug):
    """Told in debug mode only, as on asyncio; the client is sent away."""
    loop.set_debug(debug)

    async def main():
        server = await listening(loop, lambda: 1 / 0)
        for _ in range(2):
            with socket.create_connection(address(server)) as client:
                client.setblocking(False)
                assert await read_all(client) == b""
        taken = reports.take()
        assert len(taken) == 2 * debug
        for report in taken:
            text = "Error on transport creation for incoming connection"
            assert report["message"] == text
            assert isinstance(report["exception"], ZeroDivisionError)
        await stop(server)

    loop.run_until_complete(main())


def test_a_factory_of_something_else(loop, reports):
    loop.set_debug(True)

    async def main():
        server = await listening(loop, lambda: "no protocol")
        with socket.create_connection(address(server)) as client:
            client.setblocking(False)
            assert await read_all(client) == b""
        (report,) = reports.take()
        assert isinstance(report["exception"], AttributeError)
        assert report["protocol"] == "no protocol"
        await stop(server)

    loop.run_until_complete(main())


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_exits_leave_the_loop(loop, exception):
    def factory():
        raise exception

    server = loop.run_until_complete(listening(loop, factory))
    with socket.create_connection(address(server)):
        with pytest.raises(exception):
            loop.run_forever()
    loop.run_until_complete(stop(server))


def take_all_descriptors():
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        return taken


def test_out_of_descriptors(loop, reports):
    """It says so once, waits, and goes on."""
    delays = []
    handled = []

    def report_to(loop, context):
        reports.append(context)
        handled.append(sys.exc_info()[1])

    def call_later(delay, callback, *args):
        if getattr(callback, "__name__", None) == "_resume":
            delays.append(delay)
            delay = 0.01
        return type(loop).call_later(loop, delay, callback, *args)

    async def main():
        protocols = []
        server = await listening(loop, lambda: Accepted(protocols))
        await turns()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        clients = [socket.socket() for _ in range(3)]
        highest = max(client.fileno() for client in clients)
        for client in clients:
            client.connect(address(server))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            spare = take_all_descriptors()
            await until(lambda: len(reports) >= 2)
            assert protocols == []
            for fd in spare:
                os.close(fd)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(lambda: len(protocols) == 3)
        assert [report["exception"] for report in reports] == handled
        for report in reports.take():
            assert report["message"] == "socket.accept() out of system resource"
            assert report["exception"].errno == errno.EMFILE
            assert isinstance(report["socket"], asyncio.trsock.TransportSocket)
        assert set(delays) == {1}
        for client in clients:
            client.close()
        await stop(server, protocols)

    loop.call_later = call_later
    loop.set_exception_handler(report_to)
    try:
        loop.run_until_complete(main())
    finally:
        del loop.call_later


def test_a_server_closed_while_it_is_out_of_descriptors(loop, reports):
    resumes = []

    def call_later(delay, callback, *args):
        if getattr(callback, "__name__", None) == "_resume":
            resumes.append(callback)
            return None
        return type(loop).call_later(loop, delay, callback, *args)

    async def main():
        server = await listening(loop, Recorder)
        await turns()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.create_connection(address(server)) as client:
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
            spare = take_all_descriptors()
            try:
                await until(lambda: reports)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for fd in spare:
                    os.close(fd)
        await stop(server)
        assert len(reports.take()) == 1
        (resume,) = resumes
        resume()
        assert loop._open_handles() == []

    loop.call_later = call_later
    try:
        loop.run_until_complete(main())
    finally:
        del loop.call_later


def test_debug_mode_tells_of_connections(loop, caplog):
    loop.set_debug(True)
    caplog.set_level(logging.DEBUG, "asyncio")

    async def main():
        protocols = []
        server = await listening(loop, lambda: Accepted(protocols))
        with socket.create_connection(address(server)) as client:
            await until(lambda: protocols)
            name = client.getsockname()
        await protocols[0].lost
        assert any(f"got a new connection from {name!r}" in text for text in caplog.messages)
        await stop(server)

    loop.run_until_complete(main())


def test_wrong_arguments(loop):
    with pytest.raises(TypeError):
        loop._start_serving()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        with pytest.raises(TypeError):
            loop._start_serving(Recorder, sock, unexpected=1)
        with pytest.raises(TypeError):
            loop._start_serving(Recorder, sock, backlog="many")
    with pytest.raises(ValueError, match="-1"):
        loop._start_serving(Recorder, sock)


# --- context


def test_each_connection_has_a_context_of_its_own(loop):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Protocol(Recorder):
        def __init__(self):
            super().__init__()
            seen.append(variable.get())
            variable.set("connection")

        def data_received(self, data):
            seen.append(variable.get())
            self.transport.close()

    async def main():
        variable.set("server")
        server = await listening(loop, Protocol)
        variable.set("later")
        for _ in range(2):
            with socket.create_connection(address(server)) as client:
                client.setblocking(False)
                client.send(b"x")
                assert await read_all(client) == b""
        await stop(server)

    loop.run_until_complete(main())
    assert seen == ["server", "connection"] * 2


def test_a_given_context_is_copied_for_each(loop):
    """Since 3.15 asyncio gives one; the loop's own method takes it everywhere."""
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Protocol(Recorder):
        def connection_made(self, transport):
            seen.append(variable.get())
            variable.set("changed")
            super().connection_made(transport)

        def connection_lost(self, exc):
            seen.append(variable.get())
            super().connection_lost(exc)

    async def main():
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        loop._start_serving(Protocol, sock, context=context)
        for _ in range(2):
            with socket.create_connection(sock.getsockname()):
                await turns(5)
        await until(lambda: len(seen) == 4)
        loop._stop_serving(sock)
        assert context[variable] == "given"

    loop.run_until_complete(main())
    assert sorted(seen) == ["changed", "changed", "given", "given"]


# --- TLS


def tls_contexts():
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    return server, ssl.create_default_context(cafile=CERTIFICATE)


def test_tls(loop):
    async def main():
        protocols = []
        server_context, client_context = tls_contexts()
        server = await listening(loop, lambda: Accepted(protocols), ssl=server_context)
        transport, protocol = await loop.create_connection(
            Recorder, *address(server), ssl=client_context, server_hostname="localhost"
        )
        message = bytes(range(256)) * 5000
        transport.write(message)
        await until(lambda: protocols and protocols[0].data == message)
        accepted = protocols[0].transport
        assert accepted.get_extra_info("peername") == transport.get_extra_info("sockname")
        assert accepted.get_extra_info("sslcontext") is server_context
        accepted.write(b"back")
        await until(lambda: protocol.data == b"back")
        transport.close()
        assert await protocols[0].lost is None
        accepted.close()  # On 3.10 it warns otherwise.
        await protocol.lost
        await stop(server)

    loop.run_until_complete(main())


@pytest.mark.parametrize("where", ["class", "instance"])
@pytest.mark.parametrize("secure", [False, True])
def test_a_socket_that_accepts_in_a_way_of_its_own(loop, secure, where):
    accepted = []

    def accept(sock):
        connection, peername = socket.socket.accept(sock)
        accepted.append(peername)
        return connection, peername

    class Listening(socket.socket):
        """Has room for attributes."""

    async def main():
        contexts = tls_contexts()
        server_options, client_options = (
            ({"ssl": contexts[0]}, {"ssl": contexts[1], "server_hostname": "localhost"})
            if secure
            else ({}, {})
        )
        protocols = []
        sock = Listening()
        if where == "class":
            Listening.accept = accept
        else:
            sock.accept = functools.partial(accept, sock)
        sock.bind(("127.0.0.1", 0))
        server = await loop.create_server(lambda: Accepted(protocols), sock=sock, **server_options)
        transport, protocol = await loop.create_connection(
            Recorder, *address(server), **client_options
        )
        transport.write(b"there")
        await until(lambda: protocols and protocols[0].data == b"there")
        assert accepted == [transport.get_extra_info("sockname")]
        transport.close()
        await protocols[0].lost
        protocols[0].transport.close()
        await protocol.lost
        await stop(server)

    loop.run_until_complete(main())


def test_no_tls_where_it_is_expected(loop, reports):
    async def main():
        protocols = []
        server = await listening(loop, lambda: Accepted(protocols), ssl=tls_contexts()[0])
        with socket.create_connection(address(server)) as client:
            client.setblocking(False)
            client.send(b"no handshake\r\n" * 10)
            try:
                await read_all(client)
            except ConnectionResetError:
                pass
        await stop(server)
        # Told in debug mode only.
        taken = [report["message"] for report in reports.take()]
        assert taken == ["Error on transport creation for incoming connection"] * loop.get_debug()

    loop.run_until_complete(main())


def test_a_client_that_is_gone_before_its_handshake(loop, reports):
    async def main():
        protocols = []
        server_context, client_context = tls_contexts()
        server = await listening(loop, lambda: Accepted(protocols), ssl=server_context)
        for _ in range(5):
            socket.create_connection(address(server)).close()
        await until(lambda: len(protocols) == 5)
        await turns(10)
        assert [protocol.calls for protocol in protocols] == [[]] * 5
        # The next is served.
        transport, _ = await loop.create_connection(
            Recorder, *address(server), ssl=client_context, server_hostname="localhost"
        )
        await until(lambda: protocols[-1].calls == ["made"])
        transport.close()
        await protocols[-1].lost
        # 3.10's TLS warns of a transport that only its peer has closed.
        protocols[-1].transport.close()
        await stop(server)
        # Told in debug mode only.
        taken = [report["message"] for report in reports.take()]
        assert taken == ["Error on transport creation for incoming connection"] * (
            5 * loop.get_debug()
        )

    loop.run_until_complete(main())


def test_start_tls(loop):
    class Upgrades(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if data == b"upgrade\n":
                self.transport.write(b"ok\n")
                self.task = loop.create_task(self.upgrade())

        async def upgrade(self):
            self.transport = await loop.start_tls(
                self.transport, self, server_context, server_side=True
            )

    async def main():
        protocols = []

        def factory():
            protocols.append(Upgrades())
            return protocols[0]

        server = await listening(loop, factory)
        transport, protocol = await loop.create_connection(Recorder, *address(server))
        transport.write(b"upgrade\n")
        await until(lambda: protocol.data == b"ok\n")
        tls = await loop.start_tls(transport, protocol, client_context, server_hostname="localhost")
        tls.write(b"secret")
        await until(lambda: protocols[0].data == b"upgrade\nsecret")
        tls.close()
        assert await protocols[0].lost is None
        protocols[0].transport.close()  # On 3.10 it warns otherwise.
        assert await protocol.lost is None
        await stop(server)

    server_context, client_context = tls_contexts()
    loop.run_until_complete(main())
