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

    def reader(self, n):
        return self.streams[n % 2][0]

    def writer(self, n):
        return self.streams[n % 2][1]

    async def do_write(self, name, n):
        self.writer(n).write(b"abc"[: 1 + n % 3] * n)

    async def do_write_line(self, name, n):
        self.writer(n).write(b"line" * (n // 2) + b"\n")

    async def do_writelines(self, name, n):
        self.writer(n).writelines([b"a" * n, b"", b"b\n"])

    async def do_write_two(self, name, n):
        self.writer(n).write(b"x" * (n + 1))
        self.writer(n + 1).write(b"y" * (n + 1))

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
        self.transports, self.data = [], []
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

    async def do_send(self, name, n):
        self.transport(n).write(b"send" * n)

    async def do_send_soon(self, name, n):
        self.loop.call_soon(self.transport(n).write, b"soon")

    async def do_send_large(self, name, n):
        self.transport(n).write(b"large" * 60000)

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
        return transport.is_closing(), transport.is_reading(), transport.get_write_buffer_size()

    # --- connections: descriptors

    async def open_descriptors(self):
        self.sockets = socket.socketpair()
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

    async def do_raw_send(self, name, n):
        return self.sock(n).send(b"raw" * (n + 1))

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
        return await self.loop.sock_recv(self.sock(n), 100)

    async def do_sock_recv_into(self, name, n):
        buffer = bytearray(30)
        count = await self.loop.sock_recv_into(self.sock(n), buffer)
        return bytes(buffer[:count])

    async def do_sock_sendall(self, name, n):
        return await self.loop.sock_sendall(self.sock(n), b"all" * (n + 1))


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


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    def __init__(self, machine, name):
        super().__init__(machine, name)
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, size):
        self.data_received(self.buffer[:size])
