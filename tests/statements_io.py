"""What the statements of programs.py that need connections do.

All go through socket pairs, where what is sent has arrived when send() returns. The class is a part
of machine.Machine.
"""

import asyncio
import socket

from statements import error_words


class ConnectedStatements:
    # --- connections: streams

    async def open_connection(self):
        self.streams = []
        for sock in socket.socketpair():
            self.streams.append(await asyncio.open_connection(sock=sock, limit=64))

    async def close_connection(self):
        for _, writer in self.streams:
            writer.close()
        await self.wait_turns(3)
        del self.streams

    @staticmethod
    def sent(transport, peer):
        """What was written is sent at once if that is going to fail.

        Ours sends at the end of a callback, so that is when a broken connection is noticed.
        """
        if peer.is_closing() and not transport.is_closing():
            transport.get_write_buffer_size()

    def write(self, n, data):
        self.writer(n).write(data)
        self.sent(self.writer(n).transport, self.writer(n + 1).transport)

    def reader(self, n):
        return self.streams[n % 2][0]

    def writer(self, n):
        return self.streams[n % 2][1]

    async def do_write(self, name, n):
        self.write(n, b"abc"[: 1 + n % 3] * n)

    async def do_write_line(self, name, n):
        self.write(n, b"line" * (n // 2) + b"\n")

    async def do_writelines(self, name, n):
        if self.writer(n).is_closing():
            # It fails in asyncio 3.12 on what the transport has dropped.
            return
        self.writer(n).writelines([b"a" * n, b"", b"b\n"])
        self.sent(self.writer(n).transport, self.writer(n + 1).transport)

    async def do_write_long(self, name, n):
        # More than the limit, or than twice that, where reading pauses; no separator or at the end.
        self.write(n, b"long" * (17 + n % 4 * 6) + b"b\n" * (n % 3 % 2))

    async def do_write_two(self, name, n):
        self.write(n, b"x" * (n + 1))
        self.write(n + 1, b"y" * (n + 1))

    async def do_drain(self, name, n):
        await self.writer(n).drain()

    async def do_read(self, name, n):
        return await self.reader(n).read(n)

    async def do_readline(self, name, n):
        return await self.reader(n).readline()

    async def do_readexactly(self, name, n):
        return await self.reader(n).readexactly(n)

    async def do_readuntil(self, name, n):
        return await self.reader(n).readuntil(b"b")

    async def do_write_eof(self, name, n):
        self.writer(n).write_eof()

    async def do_close_writer(self, name, n):
        self.writer(n).close()

    async def do_wait_closed(self, name, n):
        await self.writer(n).wait_closed()

    async def do_stream_state(self, name, n):
        return self.reader(n).at_eof(), self.writer(n).is_closing(), len(self.reader(n)._buffer)

    # --- connections: protocols

    async def open_protocols(self):
        self.transports, self.data, self.lost, self.large = [], [], [], set()
        for number, sock in enumerate(socket.socketpair()):
            kind = BufferedRecorder if number else Recorder
            transport, _ = await self.loop.create_connection(
                lambda kind=kind, number=number: kind(self, f"p{number}"), sock=sock
            )
            self.transports.append(transport)

    async def close_protocols(self):
        for transport in self.transports:
            if not transport.is_closing():
                transport.abort()
        await self.wait_turns(3)
        del self.transports

    def transport(self, n):
        return self.transports[n % 2]

    def is_lost(self, n):
        """asyncio's transport has dropped then what it writes with."""
        return self.transport(n) in self.lost

    async def do_send(self, name, n):
        if self.is_lost(n):
            return
        self.transport(n).write(b"send" * n)
        self.sent(self.transport(n), self.transport(n + 1))

    async def do_send_soon(self, name, n):
        self.loop.call_soon(self.send_soon, n)

    def send_soon(self, n):
        if not self.is_lost(n):
            self.transport(n).write(b"soon")
            self.sent(self.transport(n), self.transport(n + 1))

    async def do_send_large(self, name, n):
        # Once: after two large reads ours has room for as much as those, not for asyncio's 256 KiB.
        if self.is_lost(n) or n % 2 in self.large:
            return
        self.large.add(n % 2)
        # How much the kernel takes depends on how many calls give it.
        self.transport(n).get_write_buffer_size()
        self.transport(n).write(b"large" * 60000)
        self.sent(self.transport(n), self.transport(n + 1))

    async def do_send_end(self, name, n):
        self.transport(n).write_eof()

    async def do_pause_reading(self, name, n):
        self.transport(n).pause_reading()

    async def do_resume_reading(self, name, n):
        self.transport(n).resume_reading()

    async def do_flip_reading(self, name, n):
        self.transport(n).pause_reading()
        self.transport(n).resume_reading()

    async def do_close_transport(self, name, n):
        self.transport(n).close()

    async def do_abort_transport(self, name, n):
        if not self.is_lost(n):
            self.transport(n).abort()

    async def do_await_data(self, name, n):
        future = self.loop.create_future()
        self.data.append(future)
        return await future

    async def do_change_protocol(self, name, n):
        kind = BufferedRecorder if n % 4 < 2 else Recorder
        protocol = kind(self, name)
        protocol.transport = self.transport(n)
        self.transport(n).set_protocol(protocol)

    async def do_transport_state(self, name, n):
        transport = self.transport(n)
        # Not the size: how much of it the kernel takes depends on how many calls give it.
        return transport.is_closing(), transport.is_reading(), transport.get_write_buffer_size() > 0

    # --- connections: descriptors

    async def open_descriptors(self):
        # The first two are for callbacks, the others for sock_*(): asyncio's remove_reader() would
        # leave such a call waiting for ever, and so would a second call. These take as much as is
        # sent at least: ours look for it a turn later than asyncio's, when their task runs.
        self.sockets = [*socket.socketpair(), *socket.socketpair()]
        self.busy = set()
        for sock in self.sockets:
            sock.setblocking(False)

    async def close_descriptors(self):
        for sock in self.sockets:
            self.loop.remove_reader(sock)
            self.loop.remove_writer(sock)
            sock.close()
        del self.sockets

    def sock(self, n):
        return self.sockets[n % 2]

    async def call(self, function, n, *args):
        sock = self.sockets[2 + n % 2]
        what = (function.__name__[:9], sock)
        if what in self.busy:
            return "busy"
        self.busy.add(what)
        try:
            return await function(sock, *args)
        finally:
            self.busy.discard(what)

    async def do_raw_send(self, name, n):
        return self.sockets[n % 4].send(b"raw" * (n + 1))

    async def do_raw_recv(self, name, n):
        return self.receive(name, n)

    def receive(self, name, n):
        try:
            data = self.sock(n).recv(20)
        except BlockingIOError:
            data = "nothing"
        self.note("received", name, data)

    async def do_add_reader(self, name, n):
        self.loop.add_reader(self.sock(n), self.receive, name, n)

    async def do_remove_reader(self, name, n):
        return self.loop.remove_reader(self.sock(n))

    async def do_add_writer(self, name, n):
        def writable():
            self.note("callback", name, self.loop.remove_writer(self.sock(n)))

        self.loop.add_writer(self.sock(n), writable)

    async def do_remove_writer(self, name, n):
        return self.loop.remove_writer(self.sock(n))

    async def do_sock_recv(self, name, n):
        return await self.call(self.loop.sock_recv, n, 3)

    async def do_sock_recv_into(self, name, n):
        buffer = bytearray(3)
        count = await self.call(self.loop.sock_recv_into, n, buffer)
        return count if count == "busy" else bytes(buffer[:count])

    async def do_sock_sendall(self, name, n):
        return await self.call(self.loop.sock_sendall, n, b"all" * (n + 1))


class Recorder(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self, machine, name):
        self.machine, self.name = machine, name

    def note(self, *what):
        self.machine.note(self.name, *what)

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def data_received(self, data):
        self.note("data", len(data), bytes(data[:8]))
        waiting, self.machine.data = self.machine.data, []
        for future in waiting:
            if not future.done():
                future.set_result(len(data))

    def eof_received(self):
        self.note("eof")

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def connection_lost(self, exc):
        self.note("lost", exc and error_words(exc))
        self.machine.lost.append(self.transport)


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    def __init__(self, machine, name):
        super().__init__(machine, name)
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, size):
        self.data_received(self.buffer[:size])
