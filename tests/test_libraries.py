"""What libraries count on beyond what asyncio documents, one test each.

What asyncio itself promises is in features/.
"""

import asyncio
import contextvars
import inspect
import os
import signal
import socket

from features import address, echo
from features.datagrams import Datagrams
from setups import Notes


def test_closing_what_is_closing(loop):
    """Closing and aborting from inside every callback, and the loop right after."""

    accepted = []

    class Closer(Notes):
        def connection_made(self, transport):
            super().connection_made(transport)
            accepted.append(self)
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
            transport, protocol = await loop.create_connection(Notes, *address(server))
            transport.write(b"y" * 100_000)
            transport.abort()
            transport.close()
            assert await protocol.lost is None
        server.close()
        for protocol in accepted:
            assert await protocol.lost is None

    loop.run_until_complete(main())
    assert [protocol.events for protocol in accepted] == [["made", "lost NoneType"]] * 20


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


def test_replaced_getaddrinfo_is_honoured(loop, monkeypatch):
    """Of the socket module, as test suites of HTTP clients do."""
    asked = []

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        real = socket.getaddrinfo

        def getaddrinfo(host, *args, **kwargs):
            asked.append(host)
            return real("127.0.0.1", *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        port = address(server)[1]
        transport, protocol = await loop.create_connection(Notes, "example.invalid", port)
        transport.close()
        await protocol.lost
        server.close()
        await server.wait_closed()

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
            transport, protocol = await loop.create_connection(Notes, sock=a)
            written = []
            transport.write = written.append
            transport.write(b"x")
            assert written == [b"x"]
            transport.close()
            await protocol.lost
        transport, protocol = await loop.create_datagram_endpoint(
            Datagrams, local_addr=("127.0.0.1", 0)
        )
        transport.sendto = written.append
        transport.sendto(b"y")
        assert written == [b"x", b"y"]
        transport.close()
        await protocol.lost

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
