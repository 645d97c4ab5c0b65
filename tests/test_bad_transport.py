"""Failing protocols, odd buffers, resets and exhausted descriptors: what asyncio makes of them.

TLS has its own in test_bad_tls.py.
"""

import array
import asyncio
import contextlib
import ctypes
import errno
import mmap
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import tempfile

import ouroloop
import pytest
from network import read_all, until
from outcome import AwaitedCases, on_both, stock_loop
from setups import TIMEOUT, address, refusal

pytestmark = pytest.mark.usefixtures("frozen_garbage")

# More than the two kernel buffers of a connection take.
MUCH = 1 << 20

CASES = AwaitedCases()
case = CASES.awaited


class Notes(asyncio.Protocol):
    """Writes down what it is told; `acts` says for each call what is done then."""

    keep_open = None

    def __init__(self, **acts):
        self.acts, self.events, self.transport = acts, [], None
        self.lost = asyncio.get_running_loop().create_future()

    def note(self, name, *what):
        self.events.append((name, *what) if what else name)
        if name in self.acts:
            self.acts[name](self)

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def data_received(self, data):
        self.note("data", bytes(data[:20]))

    def eof_received(self):
        self.note("eof")
        return self.keep_open

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def connection_lost(self, exc):
        self.lost.set_result(None)
        self.note("lost", type(exc).__name__)


class BufferedNotes(Notes, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        self.space = bytearray(100)
        self.note("buffer")
        return self.space

    def buffer_updated(self, nbytes):
        self.note("updated", bytes(self.space[:nbytes]))


@contextlib.asynccontextmanager
async def served(protocol_factory):
    """A transport's protocol on the server's side, and the plain TCP socket of the client."""
    loop = asyncio.get_running_loop()
    made = []

    def factory():
        made.append(protocol_factory())
        return made[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    # The accepted socket gets it from there.
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MUCH // 8)
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MUCH // 8)
        peer.setblocking(False)
        await loop.sock_connect(peer, address(server))
        await until(lambda: made and made[0].transport)
        try:
            yield made[0], peer
        finally:
            if not made[0].lost.done():
                made[0].transport.abort()
                await made[0].lost
            server.close()
    # The loop is alive, and takes the next.
    await asyncio.sleep(0.001)


async def ended(protocol):
    await asyncio.wait([protocol.lost], timeout=TIMEOUT / 2)
    await asyncio.sleep(0.001)
    return protocol.events


# --- a protocol that fails

CALLS = ("made", "data", "eof", "pause", "resume", "lost", "buffer", "updated")


class Odd(BaseException):
    """Neither an Exception nor a reason to leave the loop."""


ERRORS = (ZeroDivisionError, OSError, ConnectionResetError, asyncio.CancelledError, Odd)


def fail(error):
    def act(protocol):
        raise error("in the protocol")

    return act


@case(*[(call, error) for call in CALLS for error in ERRORS])
async def failing_call(loop, what):
    """The connection ends where asyncio ends it; others go on."""
    call, error = what
    kind = BufferedNotes if call in ("buffer", "updated") else Notes
    async with served(lambda: kind(**{call: fail(error)})) as (protocol, peer):
        seen = []
        await asyncio.sleep(0.002)
        if not protocol.transport.is_closing():
            protocol.transport.set_write_buffer_limits(high=1000)
            protocol.transport.write(bytes(MUCH))
            seen.append(protocol.transport.is_closing())
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(peer, b"x")
            await asyncio.sleep(0.002)
            peer.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError, OSError):
            await read_all(peer)
        return seen, await ended(protocol)


@case(*CALLS)
async def closing_call(loop, call):
    return await leaving(call, lambda protocol: protocol.transport.close())


# asyncio's own ends twice if it is aborted in one of these two, with an AttributeError.
@case(*[call for call in CALLS if call not in ("resume", "lost")])
async def aborting_call(loop, call):
    return await leaving(call, lambda protocol: protocol.transport.abort())


async def leaving(call, act):
    """A call that ends the connection, in the middle of all that goes on."""
    loop = asyncio.get_running_loop()
    kind = BufferedNotes if call in ("buffer", "updated") else Notes
    async with served(lambda: kind(**{call: act})) as (protocol, peer):
        protocol.transport.set_write_buffer_limits(high=1000)
        protocol.transport.write(bytes(MUCH))
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(peer, b"x")
            await asyncio.sleep(0.002)
            peer.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            await read_all(peer)
        return await ended(protocol)


# --- buffers of every kind


class Bytes(bytes):
    """A subclass."""


class Array(bytearray):
    """A subclass."""


def released():
    view = memoryview(b"released")
    view.release()
    return view


def mapped():
    file = mmap.mmap(-1, 10)
    file.write(b"mapped")
    return file


BUFFERS = {
    "bytes": lambda: b"bytes",
    "bytearray": lambda: bytearray(b"bytearray"),
    "memoryview": lambda: memoryview(b"memoryview"),
    "writable memoryview": lambda: memoryview(bytearray(b"memoryview")),
    "slice": lambda: memoryview(b"a memoryview")[2:5],
    "every second": lambda: memoryview(b"memoryview")[::2],
    "backwards": lambda: memoryview(b"memoryview")[::-1],
    "two dimensions": lambda: memoryview(b"memory").cast("B", (2, 3)),
    "numbers": lambda: memoryview(array.array("I", [1, 2, 3])),
    "floats": lambda: memoryview(array.array("d", [1.5])),
    "array": lambda: array.array("B", b"array"),
    "array of numbers": lambda: array.array("I", [1, 2, 3]),
    "ctypes": lambda: (ctypes.c_char * 6).from_buffer_copy(b"ctypes"),
    "mmap": mapped,
    "released": released,
    "subclass of bytes": lambda: Bytes(b"bytes"),
    "subclass of bytearray": lambda: Array(b"bytearray"),
    "empty": lambda: b"",
    "empty bytearray": lambda: bytearray(),
    "empty memoryview": lambda: memoryview(b""),
    "empty every second": lambda: memoryview(b"")[::2],
    "text": lambda: "text",
    "number": lambda: 5,
    "None": lambda: None,
    "list": lambda: [1, 2],
    "list of bytes": lambda: [b"bytes", b"more"],
    "a type": lambda: bytes,
}


@case(*BUFFERS)
async def written(loop, name):
    return await writing(lambda transport: transport.write(BUFFERS[name]()))


# From 3.12 on asyncio counts the items of what it could not send at once, not its bytes, and the
# connection ends with an IndexError.
MISCOUNTED = ("two dimensions", "numbers", "floats", "array of numbers")
COUNTED = [name for name in BUFFERS if sys.version_info < (3, 12) or name not in MISCOUNTED]


@case(*COUNTED)
async def written_behind_others(loop, name):
    """What the kernel does not take at once is kept."""

    def write(transport):
        transport.write(bytes(MUCH))
        transport.write(BUFFERS[name]())

    seen, *rest = await writing(write)
    if name in ("every second", "backwards"):
        # From 3.12 on asyncio finds out when it is its turn, the connection ends no better.
        seen.pop()
    return seen, rest


@case(*COUNTED)
async def written_as_lines(loop, name):
    def write(transport):
        try:
            return transport.writelines([b"<", BUFFERS[name](), b">"])
        except Exception:
            if sys.version_info >= (3, 15):
                # asyncio's keeps the lines before that one, sends them never and does not close.
                transport.abort()
            raise

    return await writing(write)


@case(*BUFFERS)
async def written_as_lines_after_the_end(loop, name):
    def write(transport):
        transport.abort()
        transport.writelines([b"<", BUFFERS[name](), b">"])

    return await writing(write)


@case(*BUFFERS)
async def written_as_the_lines(loop, name):
    return await writing(lambda transport: transport.writelines(BUFFERS[name]()))


@case(*BUFFERS)
async def written_after_the_end(loop, name):
    def write(transport):
        transport.close()
        transport.write(BUFFERS[name]())

    return await writing(write)


async def writing(write):
    """What a write raises, and what comes of it at the other end."""
    seen = []
    async with served(Notes) as (protocol, peer):
        protocol.keep_open = True
        try:
            seen.append(write(protocol.transport))
        except Exception as error:
            seen.append(f"{type(error).__name__}: {error}")
        with contextlib.suppress(Exception):
            protocol.transport.write(b"|")
        seen.append(protocol.transport.is_closing())
        protocol.transport.close()
        data = await read_all(peer)
        return seen, len(data), data[-30:], await ended(protocol)


@pytest.mark.parametrize("name", MISCOUNTED)
def test_items_of_several_bytes_behind_others(name):
    loop = ouroloop.new_event_loop()

    def write(transport):
        transport.write(bytes(MUCH))
        transport.writelines([b"<", BUFFERS[name](), b">"])

    expected = memoryview(BUFFERS[name]()).tobytes()
    _, size, data, _ = loop.run_until_complete(writing(write))
    loop.close()
    assert data.endswith(b"<" + expected + b">|")
    assert size == MUCH + len(expected) + 3


# --- another protocol in the middle

SUCCESSORS = {
    "plain": Notes,
    "buffered": BufferedNotes,
    "streams": lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()),
    "base": asyncio.BaseProtocol,
    "None": lambda: None,
    "number": lambda: 5,
}


@case(*[(call, name) for call in CALLS for name in SUCCESSORS])
async def followed(loop, what):
    """In each of its calls a protocol gives way to another, of the same kind or not."""
    call, name = what
    successors = []

    def give_way(protocol):
        if not successors:
            successors.append(SUCCESSORS[name]())
            protocol.transport.set_protocol(successors[0])

    kind = BufferedNotes if call in ("buffer", "updated") else Notes
    async with served(lambda: kind(**{call: give_way})) as (protocol, peer):
        transport = protocol.transport
        transport.set_write_buffer_limits(high=1000)
        transport.write(bytes(MUCH))
        try:
            await loop.sock_sendall(peer, b"one")
            await asyncio.sleep(0.003)
            await loop.sock_sendall(peer, b"two")
            await asyncio.sleep(0.003)
            peer.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.003)
            transport.close()
            await read_all(peer)
        except OSError:
            pass  # Whom it could not be handed on to was sent away.
        await asyncio.sleep(0.005)
        seen = [transport.get_protocol() is each for each in successors]
        events = [each.events for each in successors if isinstance(each, Notes)]
        if not protocol.lost.done():
            protocol.lost.set_result(None)
        return seen, protocol.events, events


# --- resets


def reset(sock):
    """Close so that the peer is told of an error."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def reset_at_once(loop, protocol, peer):
    reset(peer)


async def reset_with_data_waiting(loop, protocol, peer):
    protocol.transport.pause_reading()
    await loop.sock_sendall(peer, b"data")
    await asyncio.sleep(0.002)
    reset(peer)
    await asyncio.sleep(0.002)
    protocol.events.append(protocol.transport.is_closing())
    protocol.transport.resume_reading()


async def reset_after_data(loop, protocol, peer):
    await loop.sock_sendall(peer, b"data")
    await until(lambda: ("data", b"data") in protocol.events)
    reset(peer)


async def reset_while_much_is_written(loop, protocol, peer):
    protocol.transport.write(bytes(MUCH))
    await asyncio.sleep(0.002)
    reset(peer)


async def reset_while_paused_and_written_to(loop, protocol, peer):
    protocol.transport.pause_reading()
    protocol.transport.write(bytes(MUCH))
    await asyncio.sleep(0.002)
    reset(peer)


async def reset_then_written_to(loop, protocol, peer):
    protocol.transport.pause_reading()
    reset(peer)
    await asyncio.sleep(0.002)
    for _ in range(3):
        protocol.transport.write(b"x")
        await asyncio.sleep(0.001)


async def reset_then_eof(loop, protocol, peer):
    protocol.transport.pause_reading()
    reset(peer)
    await asyncio.sleep(0.002)
    try:
        protocol.transport.write_eof()
    except OSError as error:
        protocol.events.append((type(error).__name__, errno.errorcode[error.errno]))
    protocol.transport.resume_reading()


async def reset_after_our_eof(loop, protocol, peer):
    protocol.transport.write_eof()
    assert await loop.sock_recv(peer, 10) == b""
    reset(peer)


async def reset_after_their_eof(loop, protocol, peer):
    protocol.keep_open = True
    peer.shutdown(socket.SHUT_WR)
    await until(lambda: "eof" in protocol.events)
    reset(peer)
    await asyncio.sleep(0.002)
    protocol.transport.write(b"x")
    await asyncio.sleep(0.002)
    protocol.transport.write(b"x")


async def reset_while_closing(loop, protocol, peer):
    protocol.transport.write(bytes(MUCH))
    protocol.transport.close()
    await asyncio.sleep(0.002)
    reset(peer)


async def reset_after_closing(loop, protocol, peer):
    protocol.transport.close()
    reset(peer)


async def reset_while_a_file_is_sent(loop, protocol, peer):
    with tempfile.TemporaryFile() as file:
        file.truncate(64 << 20)
        sending = asyncio.ensure_future(loop.sendfile(protocol.transport, file))
        await asyncio.sleep(0.005)
        reset(peer)
        (error,) = await asyncio.gather(sending, return_exceptions=True)
    await until(lambda: "eof" in protocol.events)
    # In which order they are told of it is left to the loop.
    protocol.events.insert(0, type(error))
    protocol.transport.abort()


RESETS = [function for name, function in sorted(globals().items()) if name.startswith("reset_")]


@case(*RESETS)
async def reset_stage(loop, act):
    async with served(Notes) as (protocol, peer):
        await act(loop, protocol, peer)
        return await ended(protocol)


@case(*RESETS)
async def reset_stage_buffered(loop, act):
    if act is reset_after_data:
        return None
    async with served(BufferedNotes) as (protocol, peer):
        await act(loop, protocol, peer)
        return [event for event in await ended(protocol) if event != "buffer"]


@case()
async def reset_before_it_is_accepted(loop):
    made = []

    def factory():
        made.append(Notes())
        return made[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0, start_serving=False)
    sock = server.sockets[0]
    # As start_serving() does, but nobody accepts yet.
    os_socket = socket.socket(fileno=os.dup(sock.fileno()))
    with os_socket:
        os_socket.listen()
        for _ in range(3):
            reset(socket.create_connection(sock.getsockname()))
        with socket.create_connection(sock.getsockname()) as last:
            await server.start_serving()
            await until(lambda: sum("made" in each.events for each in made) >= 1)
            await asyncio.sleep(0.01)
            last.send(b"hello")
            await until(lambda: any(("data", b"hello") in each.events for each in made))
        for each in made:
            await ended(each)
    server.close()
    return [each.events for each in made]


@case("read", "readline", "readexactly", "readuntil", "drain", "wait_closed")
async def reset_under_a_stream(loop, method):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        peer, _ = listener.accept()
        if method == "drain":
            writer.write(bytes(8 * MUCH))
        target = reader if method.startswith("read") else writer
        arguments = {"readexactly": (10,), "readuntil": (b"|",)}.get(method, ())
        waiting = asyncio.ensure_future(getattr(target, method)(*arguments))
        await asyncio.sleep(0.002)
        reset(peer)
        (error,) = await asyncio.gather(waiting, return_exceptions=True)
        seen = [f"{type(error).__name__}: {error}"]
        for again in (reader.read(), writer.drain()):
            try:
                seen.append(await again)
            except Exception as later:
                seen.append(f"{type(later).__name__}: {later}")
        writer.close()
        seen.append(await asyncio.gather(writer.wait_closed(), return_exceptions=True))
        return seen


# --- no descriptor left


@contextlib.contextmanager
def no_descriptors():
    """Nothing can be opened in the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]
    highest = max(int(name) for name in os.listdir("/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def hello(loop):
    """Something that needs no descriptor: timers, threads, other threads."""
    seen = [await asyncio.sleep(0.001, "slept")]
    future = loop.create_future()
    await loop.run_in_executor(None, loop.call_soon_threadsafe, future.set_result, "called")
    seen.append(await future)
    return seen


# Not a process without pipes: here a thread waits for it, asyncio's fails once it is started.
WANTS = {
    "create_connection": lambda loop, listener: loop.create_connection(
        Notes, *listener.getsockname()
    ),
    "create_connection from here": lambda loop, listener: loop.create_connection(
        Notes, *listener.getsockname(), local_addr=("127.0.0.1", 0)
    ),
    "happy eyeballs": lambda loop, listener: loop.create_connection(
        Notes, *listener.getsockname(), happy_eyeballs_delay=0.1
    ),
    "create_server": lambda loop, listener: loop.create_server(Notes, "127.0.0.1", 0),
    "start_server": lambda loop, listener: asyncio.start_server(print, "127.0.0.1", 0),
    "create_unix_connection": lambda loop, listener: loop.create_unix_connection(Notes, "/none"),
    "create_unix_server": lambda loop, listener: loop.create_unix_server(Notes, "/none/none"),
    "datagrams": lambda loop, listener: loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    ),
    "subprocess": lambda loop, listener: asyncio.create_subprocess_exec(
        "true", stdout=subprocess.PIPE
    ),
    "subprocess's stdin": lambda loop, listener: asyncio.create_subprocess_exec(
        "true", stdin=subprocess.PIPE
    ),
    "sock_accept": lambda loop, listener: loop.sock_accept(listener),
    "getaddrinfo": lambda loop, listener: loop.getaddrinfo("127.0.0.1", 80),
}


@case(*WANTS)
async def out_of_descriptors(loop, name):
    """It is told to whoever wants one; the loop goes on, and so does the same call later."""
    await hello(loop)
    await loop.getaddrinfo("localhost", 80)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()):
            seen = []
            with no_descriptors():
                try:
                    seen.append(type(await WANTS[name](loop, listener)).__name__)
                except OSError as error:
                    seen.append(f"{type(error).__name__}: {error}")
                seen.append(await hello(loop))
            if name == "sock_accept":
                accepted, _ = await loop.sock_accept(listener)
                accepted.close()
            if name.startswith("create_connection"):
                seen.append(await refusal(WANTS[name](loop, listener)))
            return seen


@case("TCP", "unix")
async def no_descriptor_to_accept_with(loop, kind):
    """The server says so, waits a second, and takes whoever is still there."""
    reports, delays, made = [], set(), []

    def call_later(delay, callback, *arguments, **options):
        if delay == 1:
            delays.add(delay)
            delay = 0.01
        return type(loop).call_later(loop, delay, callback, *arguments, **options)

    def factory():
        made.append(Notes())
        return made[-1]

    def report(loop, context):
        error = context["exception"]
        reports.append((sorted(context), context["message"], type(error), str(error)))

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as clients:
        if kind == "TCP":
            server = await loop.create_server(factory, "127.0.0.1", 0)
        else:
            server = await loop.create_unix_server(factory, f"{folder}/socket")
        await hello(loop)
        family, where = server.sockets[0].family, server.sockets[0].getsockname()
        socks = [clients.enter_context(socket.socket(family)) for _ in range(3)]
        with no_descriptors():
            loop.set_exception_handler(report)
            loop.call_later = call_later
            for sock in socks:
                sock.connect(where)
            await until(lambda: reports)
            seen = [len(made), await hello(loop)]
        await until(lambda: len(made) == 3 and all(each.transport for each in made))
        del loop.call_later
        for sock in socks:
            sock.close()
        for each in made:
            await ended(each)
        server.close()
    # Some versions of asyncio say it several times at once.
    return seen, sorted(set(map(repr, reports))), delays, [each.events for each in made]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("new_loop", [stock_loop, ouroloop.new_event_loop])
def test_no_descriptor_for_a_loop(new_loop, monkeypatch):
    # asyncio's loop that could not be made complains once more when it is freed.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    before = len(os.listdir("/dev/fd"))
    with no_descriptors(), pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        new_loop()
    assert len(os.listdir("/dev/fd")) == before
    new_loop().close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case):
    stock, ours = on_both(case)
    assert callbacks_unnamed(ours) == callbacks_unnamed(stock)


def callbacks_unnamed(outcome):
    """Which of a transport's own callbacks called the protocol is an accident of its insides."""
    own = r"Exception in callback (None|\w*Transport\.\w+)\(.*?\) \['exception'"
    return [re.sub(own, "Exception in callback ['exception'", line) for line in outcome.lines()]
