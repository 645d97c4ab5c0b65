"""A connection of asyncio's streams to a plain socket, for tests."""

import asyncio
import socket


class Connection:
    """A reader and a writer, and the socket at the other end."""

    async def __aenter__(self):
        ours, self.peer = socket.socketpair()
        self.reader, self.writer = await asyncio.open_connection(sock=ours)
        return self

    async def __aexit__(self, *_):
        self.peer.close()
        self.writer.close()
        await self.writer.wait_closed()

    async def readline(self):
        return await self.reader.readline()

    async def waiting(self, coroutine):
        """A task that waits in it for input."""
        task = asyncio.ensure_future(coroutine)
        await asyncio.sleep(0)
        return task


def on(loop):
    """Run a coroutine function with a connection on the loop."""

    def decorate(function):
        async def main():
            async with Connection() as connection:
                return await function(connection)

        return loop.run_until_complete(main())

    return decorate
