"""What other event loops are known to get wrong, and what libraries count on, one test each.

The headings name the loop whose users met the problem. Fork, subinterpreters and Ctrl-C need
processes of their own: see isolated/.
"""

import asyncio
import contextlib
import contextvars
import gc
import inspect
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import weakref

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
CERTIFICATE = os.path.join(HERE, "localhost.pem")


def server_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_context():
    return ssl.create_default_context(cafile=CERTIFICATE)


class Recorder(asyncio.Protocol):
    """Keeps what it is told, and a future that is done when the connection is lost."""

    def __init__(self):
        self.events = []
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        self.data += data
        self.events.append("data")

    def eof_received(self):
        self.events.append("eof")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)


async def start_echo(loop, **options):
    async def echo(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    return await asyncio.start_server(echo, "127.0.0.1", 0, **options)


def address(server):
    return server.sockets[0].getsockname()


async def stop(server):
    server.close()
    await server.wait_closed()


# --- uvloop


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_eager_task_factory(loop):
    order = []

    async def child():
        order.append("child")
        return 1

    async def main():
        task = asyncio.create_task(child(), name="eager")
        order.append("main")
        assert task.done()
        assert task.get_name() == "eager"
        return await task

    loop.set_task_factory(asyncio.eager_task_factory)
    assert loop.run_until_complete(main()) == 1
    assert order == ["child", "main"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_stock_tasks_started_eagerly(loop):
    """As aiohttp makes them, whatever the loop's own Task is."""

    async def child(n):
        await asyncio.sleep(0)
        return n

    async def main():
        tasks = [asyncio.Task(child(n), loop=loop, eager_start=True) for n in range(3)]
        assert not any(task.done() for task in tasks)
        return await asyncio.gather(*tasks)

    assert loop.run_until_complete(main()) == [0, 1, 2]


def test_sendfile(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 100_000)

    async def main():
        received = loop.create_future()

        async def handle(reader, writer):
            received.set_result(await reader.read())
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(Recorder, *address(server))
        with open(path, "rb") as file:
            assert await loop.sendfile(transport, file) == 1_000_000
        transport.close()
        await protocol.lost
        assert await received == path.read_bytes()
        await stop(server)

    loop.run_until_complete(main())


def test_sock_sendfile(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 1000)

    async def main():
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)
            with open(path, "rb") as file:
                assert await loop.sock_sendfile(a, file) == 3000
            assert b.recv(5000) == b"abc" * 1000

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="these methods came with 3.11")
def test_sock_datagrams(loop):
    async def main():
        with contextlib.ExitStack() as stack:
            a, b = (stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2))
            for sock in (a, b):
                sock.setblocking(False)
                sock.bind(("127.0.0.1", 0))
            assert await loop.sock_sendto(a, b"hello", b.getsockname()) == 5
            assert await loop.sock_recvfrom(b, 100) == (b"hello", a.getsockname())
            buffer = bytearray(10)
            receiving = asyncio.ensure_future(loop.sock_recvfrom_into(b, buffer))
            await asyncio.sleep(0)
            await loop.sock_sendto(a, b"again", b.getsockname())
            assert await receiving == (5, a.getsockname())
            assert buffer[:5] == b"again"

    loop.run_until_complete(main())


def test_happy_eyeballs(loop):
    async def main():
        server = await start_echo(loop)
        port = address(server)[1]
        transport, protocol = await loop.create_connection(
            Recorder, "127.0.0.1", port, happy_eyeballs_delay=0.1, interleave=1
        )
        transport.close()
        await protocol.lost
        await stop(server)

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all_errors came with 3.12")
def test_all_errors(loop):
    async def main():
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            with pytest.raises(ExceptionGroup) as caught:  # noqa: F821
                await loop.create_connection(Recorder, *sock.getsockname(), all_errors=True)
        assert [type(e) for e in caught.value.exceptions] == [ConnectionRefusedError]

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="keep_alive came with 3.13")
def test_server_keep_alive(loop):
    async def main():
        server = await loop.create_server(Recorder, "127.0.0.1", 0, keep_alive=True)
        option = server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert option != 0
        await stop(server)

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="these methods came with 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_server_ends_its_clients(loop, method):
    async def main():
        server = await start_echo(loop)
        _, protocol = await loop.create_connection(Recorder, *address(server))
        protocol.transport.write(b"x")
        while not protocol.data:
            await asyncio.sleep(0.001)
        server.close()
        getattr(server, method)()
        await asyncio.wait_for(server.wait_closed(), 5)
        await asyncio.wait_for(protocol.lost, 5)

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="from 3.12 on it waits")
def test_wait_closed_waits_for_connections(loop):
    async def main():
        server = await start_echo(loop)
        transport, protocol = await loop.create_connection(Recorder, *address(server))
        transport.write(b"x")
        while not protocol.data:
            await asyncio.sleep(0.001)
        server.close()
        waiter = asyncio.ensure_future(server.wait_closed())
        await asyncio.sleep(0.05)
        assert not waiter.done()
        transport.close()
        await asyncio.wait_for(waiter, 5)
        await protocol.lost

    loop.run_until_complete(main())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract names are Linux's")
def test_abstract_unix_socket(loop):
    name = f"\0ouroloop-{os.getpid()}"

    async def main():
        server = await loop.create_unix_server(Recorder, name)
        transport, protocol = await loop.create_unix_connection(Recorder, name)
        assert transport.get_extra_info("peername") == name.encode()
        transport.close()
        await protocol.lost
        await stop(server)

    loop.run_until_complete(main())


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self):
        loop = asyncio.get_running_loop()
        self.received, self.errors = asyncio.Queue(), asyncio.Queue()
        self.lost = loop.create_future()

    def datagram_received(self, data, addr):
        self.received.put_nowait(data)

    def error_received(self, exc):
        self.errors.put_nowait(exc)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def open_datagrams(loop, **options):
    transport, protocol = await loop.create_datagram_endpoint(Datagrams, **options)
    if sys.version_info >= (3, 12):  # not so on asyncio itself before
        assert isinstance(transport, asyncio.DatagramTransport)
    return transport, protocol


def test_empty_datagram(loop):
    async def main():
        receiver, protocol = await open_datagrams(loop, local_addr=("127.0.0.1", 0))
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for data in (b"a", b"", b"b"):
                sock.sendto(data, receiver.get_extra_info("sockname"))
            got = [await asyncio.wait_for(protocol.received.get(), 5) for _ in range(3)]
        assert got == [b"a", b"", b"b"]
        receiver.close()
        await protocol.lost

    loop.run_until_complete(main())


def test_datagram_errors_reach_the_protocol(loop):
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            nobody = sock.getsockname()
        transport, protocol = await open_datagrams(loop, remote_addr=nobody)
        transport.sendto(b"x")
        error = await asyncio.wait_for(protocol.errors.get(), 5)
        assert isinstance(error, ConnectionRefusedError)
        transport.close()
        await protocol.lost

    loop.run_until_complete(main())


def test_unix_datagrams(loop, tmp_path):
    path = str(tmp_path / "socket")

    async def main():
        receiver, protocol = await open_datagrams(loop, local_addr=path, family=socket.AF_UNIX)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"hello", path)
        assert await asyncio.wait_for(protocol.received.get(), 5) == b"hello"
        receiver.close()
        await protocol.lost

    loop.run_until_complete(main())


def test_timers_are_never_early(loop):
    early = []

    async def main():
        for n in range(60):
            delay = 0.0004 + n * 0.00013
            started = time.monotonic()
            await asyncio.sleep(delay)
            # The loop rounds to its clock's resolution, as asyncio does.
            if time.monotonic() - started < delay - 2e-6:
                early.append((delay, time.monotonic() - started))

    loop.run_until_complete(main())
    assert early == []


def test_write_buffer_limits(loop):
    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
            transport.close()
            await protocol.lost

    loop.run_until_complete(main())


POPEN_OPTIONS = {
    "cwd": {"cwd": "/"},
    "env": {"env": {"PATH": os.environ["PATH"], "OUROLOOP": "yes"}},
    "umask": {"umask": 0o077},
    "pass_fds": {"pass_fds": (0,)},
    "close_fds": {"close_fds": False},
    "start_new_session": {"start_new_session": True},
    "preexec_fn": {"preexec_fn": os.getpid},
    "restore_signals": {"restore_signals": False},
    "executable": {"executable": "/bin/sh"},
    "user": {"user": os.getuid()},
    "group": {"group": os.getgid()},
    "extra_groups": {"extra_groups": []},
    "pipesize": {"pipesize": 65536},
}
if sys.version_info >= (3, 11):
    POPEN_OPTIONS["process_group"] = {"process_group": 0}


@pytest.mark.parametrize("option", POPEN_OPTIONS)
def test_popen_arguments(loop, option):
    if option in ("user", "group", "extra_groups") and os.getuid() != 0:
        pytest.skip("only root may set it")

    async def main():
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "echo $0", stdout=subprocess.PIPE, **POPEN_OPTIONS[option]
        )
        out, _ = await asyncio.wait_for(process.communicate(), 20)
        assert out == b"sh\n"
        assert process.returncode == 0

    loop.run_until_complete(main())


def test_stdin_of_a_child_can_be_reopened(loop):
    """It is a pipe, not a socket."""

    async def main():
        process = await asyncio.create_subprocess_exec(
            "cat", "/dev/stdin", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(b"hello"), 20)
        assert out == b"hello"

    loop.run_until_complete(main())


def test_closing_what_is_closing(loop):
    """Closing and aborting from inside every callback, and the loop right after."""

    class Closer(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"x")
            transport.close()
            transport.abort()

        def connection_lost(self, exc):
            self.transport.close()
            self.transport.abort()
            super().connection_lost(exc)

    async def main():
        server = await loop.create_server(Closer, "127.0.0.1", 0)
        for _ in range(20):
            transport, protocol = await loop.create_connection(Recorder, *address(server))
            transport.write(b"y" * 100_000)
            transport.abort()
            transport.close()
            await protocol.lost
        server.close()

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio's TLS of 3.10 gives no eof")
def test_tls_eof(loop):
    """eof_received is called over TLS as well, and what came before it is not lost."""

    async def main():
        async def handle(reader, writer):
            writer.write(b"goodbye")
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_context())
        transport, protocol = await loop.create_connection(
            Recorder, *address(server), ssl=client_context()
        )
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.data == b"goodbye"
        assert protocol.events[0] == "made"
        assert protocol.events[-2:] == ["eof", "lost"]
        assert transport.get_extra_info("cipher")
        await stop(server)

    loop.run_until_complete(main())


def test_data_comes_after_create_connection_returned(loop):
    """The waiter of create_connection goes on before the first data_received."""

    async def main():
        async def greet(reader, writer):
            writer.write(b"welcome")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        for _ in range(50):
            transport, protocol = await loop.create_connection(Recorder, *address(server))
            protocol.events.append("connected")
            while not protocol.data:
                await asyncio.sleep(0)
            assert protocol.events == ["made", "connected", "data"]
            transport.close()
            await protocol.lost
        await stop(server)

    loop.run_until_complete(main())


# --- rloop


def test_cancelled_handles_do_not_run(loop):
    ran = []
    handles = [loop.call_soon(ran.append, n) for n in range(4)]
    handles += [loop.call_later(0, ran.append, n) for n in range(4, 6)]
    loop.call_soon(handles[3].cancel)
    for n in (0, 2, 5):
        handles[n].cancel()
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    assert sorted(ran) == [1, 3, 4]


def test_handle_cancelled_by_an_earlier_one_of_the_same_turn(loop):
    ran = []
    loop.call_soon(lambda: later.cancel())
    later = loop.call_soon(ran.append, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == []


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_exits_leave_the_loop(loop, exception):
    def leave():
        raise exception(3)

    loop.call_soon(leave)
    after = []
    loop.call_soon(after.append, 1)
    with pytest.raises(exception):
        loop.run_forever()
    assert not loop.is_running()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert after == [1]


def test_add_reader_on_the_descriptor_of_a_transport(loop):
    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            for method in (loop.add_reader, loop.add_writer):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    method(a.fileno(), print)
            b.send(b"still works")
            while not protocol.data:
                await asyncio.sleep(0.001)
            transport.close()
            await protocol.lost

    loop.run_until_complete(main())


def test_context_of_protocol_callbacks(loop):
    """They run in the context that made the connection, on both sides."""
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Sees(Recorder):
        def data_received(self, data):
            seen.append(variable.get())
            super().data_received(data)

        def connection_lost(self, exc):
            seen.append(variable.get())
            super().connection_lost(exc)

    async def connect(a):
        variable.set("creator")
        return await loop.create_connection(Sees, sock=a)

    async def main():
        variable.set("main")
        a, b = socket.socketpair()
        with b:
            transport, protocol = await asyncio.create_task(connect(a))
            b.send(b"x")
            while not protocol.data:
                await asyncio.sleep(0.001)
            transport.close()
            await protocol.lost

    loop.run_until_complete(main())
    # As on asyncio, where closing was the business of whoever calls close() before 3.15.
    assert seen == ["creator", "creator" if sys.version_info >= (3, 15) else "main"]


def test_context_of_readers_and_signal_handlers(loop):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    async def main():
        variable.set("here")
        a, b = socket.socketpair()
        with a, b:
            done = loop.create_future()

            def ready():
                seen.append(variable.get())
                loop.remove_reader(a)
                done.set_result(None)

            loop.add_reader(a, ready)
            b.send(b"x")
            await done
        done = loop.create_future()
        loop.add_signal_handler(
            signal.SIGUSR1, lambda: (seen.append(variable.get()), done.set_result(None))
        )
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(done, 5)
        loop.remove_signal_handler(signal.SIGUSR1)

    loop.run_until_complete(main())
    assert seen == ["here", "here"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_loops_leak_no_descriptors():
    import ouroloop

    def one():
        loop = ouroloop.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    one()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        one()
    assert len(os.listdir("/proc/self/fd")) == before


def test_streams_echo(loop):
    async def main():
        server = await start_echo(loop)
        reader, writer = await asyncio.open_connection(*address(server))
        for size in (1, 100, 10_000, 1_000_000):
            writer.write(b"x" * size)
            await writer.drain()
            assert await asyncio.wait_for(reader.readexactly(size), 10) == b"x" * size
        writer.close()
        await writer.wait_closed()
        await stop(server)

    loop.run_until_complete(main())


def test_protocol_errors_are_reported_and_close(loop, reports):
    class Fails(Recorder):
        def data_received(self, data):
            raise ZeroDivisionError

    async def main():
        a, b = socket.socketpair()
        with b:
            _, protocol = await loop.create_connection(Fails, sock=a)
            b.send(b"x")
            assert isinstance(await asyncio.wait_for(protocol.lost, 5), ZeroDivisionError)

    loop.run_until_complete(main())
    (report,) = reports.take()
    assert report["message"] == "Fatal error: protocol.data_received() call failed."


# --- zuvloop


def test_debug_mode_tells_of_slow_callbacks(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    loop.call_soon(time.sleep, 0.05)
    loop.call_soon(loop.stop)
    loop.run_forever()
    (record,) = [r for r in caplog.records if "took" in r.getMessage()]
    assert "sleep" in record.getMessage()
    assert record.levelname == "WARNING"


def test_timers_compare(loop):
    early, late = loop.call_later(10, print), loop.call_later(20, print)
    assert early < late
    assert late >= early
    assert isinstance(early, asyncio.TimerHandle)
    assert early._when == early.when()
    for handle in (early, late):
        handle.cancel()


@pytest.mark.parametrize("delay", [0, -1, -0.5])
def test_call_later_without_delay_returns_a_timer(loop, delay):
    ran = []
    handle = loop.call_later(delay, ran.append, 1)
    assert isinstance(handle, asyncio.TimerHandle)
    assert handle.when() <= loop.time()
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert ran == [1]


def test_the_clock_is_monotonic_time(loop):
    before = time.monotonic()
    now = loop.time()
    assert before <= now <= time.monotonic()


# --- what libraries count on


def test_replaced_getaddrinfo_is_honoured(loop, monkeypatch):
    """Of the socket module, as test suites of HTTP clients do."""
    asked = []

    async def main():
        server = await start_echo(loop)
        real = socket.getaddrinfo

        def getaddrinfo(host, *args, **kwargs):
            asked.append(host)
            return real("127.0.0.1", *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        port = address(server)[1]
        transport, protocol = await loop.create_connection(Recorder, "example.invalid", port)
        transport.close()
        await protocol.lost
        await stop(server)

    loop.run_until_complete(main())
    assert "example.invalid" in asked


def test_replaced_create_connection_is_honoured(loop, monkeypatch):
    async def create_connection(self, *args, **kwargs):
        return "replaced"

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", create_connection)
    assert loop.run_until_complete(loop.create_connection(None, "x", 1)) == "replaced"


def test_replaced_time_is_honoured(loop, monkeypatch):
    """A test that replaces loop.time moves timers made afterwards."""
    monkeypatch.setattr(loop, "time", lambda: 1e6)
    handle = loop.call_later(5, print)
    assert handle.when() == 1e6 + 5
    handle.cancel()


def test_replaced_call_soon_is_honoured(loop):
    calls = []

    class Recording(type(loop)):
        def call_soon(self, callback, *args, context=None):
            calls.append(callback)
            return super().call_soon(callback, *args, context=context)

    other = Recording()
    future = other.create_future()
    future.add_done_callback(print)
    future.set_result(None)
    assert calls == [print]
    other.close()


def test_methods_of_a_transport_can_be_replaced(loop):
    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            written = []
            transport.write = written.append
            transport.write(b"x")
            assert written == [b"x"]
            transport.close()
            await protocol.lost
        transport, protocol = await open_datagrams(loop, local_addr=("127.0.0.1", 0))
        transport.sendto = written.append
        transport.sendto(b"y")
        assert written == [b"x", b"y"]
        transport.close()
        await protocol.lost

    loop.run_until_complete(main())


def test_transports_are_asyncio_transports(loop):
    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            assert isinstance(transport, asyncio.Transport)
            assert weakref.ref(transport)() is transport
            sock = transport.get_extra_info("socket")
            assert type(sock).__name__ == "TransportSocket"
            assert sock.family == socket.AF_UNIX
            transport.close()
            await protocol.lost

    loop.run_until_complete(main())


def test_tls_internals_that_libraries_read(loop):
    async def main():
        server = await start_echo(loop, ssl=server_context())
        context = client_context()
        transport, protocol = await loop.create_connection(Recorder, *address(server), ssl=context)
        assert transport._ssl_protocol._sslcontext is context
        assert transport.get_extra_info("sslcontext") is context
        assert transport.get_extra_info("ssl_object").version()
        transport.write(b"hello")
        while protocol.data != b"hello":
            await asyncio.sleep(0.001)
        transport.close()
        await protocol.lost
        await stop(server)

    loop.run_until_complete(main())


def test_remove_reader_of_a_closed_file(loop):
    a, b = socket.socketpair()
    loop.add_reader(a, print)
    a.close()
    b.close()
    assert loop.remove_reader(a) is True


def test_datagram_resume_writing_is_not_called_after_close(loop):
    calls = []

    class Flow(Datagrams):
        def pause_writing(self):
            calls.append("pause")

        def resume_writing(self):
            calls.append("resume")

    async def main():
        receiver, receiving = await open_datagrams(loop, local_addr=("127.0.0.1", 0))
        sender, sending = await loop.create_datagram_endpoint(
            Flow, remote_addr=receiver.get_extra_info("sockname")
        )
        sender.set_write_buffer_limits(high=0)
        for _ in range(100):
            sender.sendto(b"x" * 1000)
        sender.close()
        del calls[:]
        await sending.lost
        await asyncio.sleep(0.01)
        assert calls == []
        receiver.close()
        await receiving.lost

    loop.run_until_complete(main())


def test_stop_runs_no_extra_turn(loop):
    ran = []

    def first():
        ran.append("first")
        loop.call_soon(ran.append, "next turn")
        loop.stop()

    loop.call_soon(first)
    loop.call_soon(ran.append, "same turn")
    loop.run_forever()
    assert ran == ["first", "same turn"]
    loop.stop()
    loop.run_forever()
    assert ran == ["first", "same turn", "next turn"]


def test_task_internals_that_anyio_reads(loop):
    async def wait(future):
        await future

    async def main():
        future = loop.create_future()
        task = loop.create_task(wait(future))
        await asyncio.sleep(0)
        assert task._fut_waiter is future
        assert task._must_cancel is False
        assert task._callbacks in (None, [])
        task.add_done_callback(print)
        assert [callback for callback, _ in task._callbacks] == [print]
        task.remove_done_callback(print)
        # It finds the root task by this callback of run_until_complete.
        names = [callback.__name__ for callback, _ in asyncio.current_task()._callbacks]
        assert names == ["_run_until_complete_cb"]
        task.cancel()
        await asyncio.wait([task])

    loop.run_until_complete(main())


def test_a_loop_factory_can_be_named():
    """uvicorn and others import `ouroloop:new_event_loop` and call it without arguments."""
    import ouroloop

    assert len(inspect.signature(ouroloop.new_event_loop).parameters) == 0
    loop = ouroloop.new_event_loop()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)
    loop.close()


def test_default_executor_threads_have_asyncios_name(loop):
    import threading

    async def main():
        return await loop.run_in_executor(None, lambda: threading.current_thread().name)

    assert loop.run_until_complete(main()) == "asyncio_0"
