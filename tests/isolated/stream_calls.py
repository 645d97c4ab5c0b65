"""One conversation over streams, printed: what the calls gave to await, and what came of them.

stream_calls.py                     on ouroloop
stream_calls.py reload              the same after the module was loaded a second time
"""

import asyncio
import gc
import socket
import sys

import ouroloop


async def awaited_by(coroutine):
    """The type of what it waits for."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    return task, type(coroutine.cr_await).__name__


async def main():
    ours, peer = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)

    async def readline():
        return await reader.readline()

    task, kind = await awaited_by(readline())
    print(kind)
    peer.send(b"a line\nmore")
    print(await task)
    writer.write(b"answer")
    await writer.drain()
    await asyncio.sleep(0)
    print(peer.recv(100))
    peer.close()
    print(await reader.read())
    writer.close()
    await writer.wait_closed()


async def read_traced():
    reader = asyncio.StreamReader()
    seen = set()

    def trace(frame, event, argument):
        seen.add(frame.f_code.co_name)

    async def read():
        return await reader.readline()

    reader.feed_data(b"a line\n")
    sys.settrace(trace)
    await read()
    sys.settrace(None)
    print(*sorted(seen & {"readline"}))


async def read_much():
    reader = asyncio.StreamReader()
    reader.feed_data(b"x" * 5000)
    result = await reader.readexactly(5000)
    # One is the variable's, the other the argument's.
    print(len(result) if sys.getrefcount(result) > 2 else 0)


mode = sys.argv[1] if len(sys.argv) > 1 else ""
if mode == "reload":
    old = ouroloop
    for name in [name for name in sys.modules if name.startswith("ouroloop")]:
        del sys.modules[name]
    import ouroloop

    assert ouroloop is not old
    ouroloop.run(main())
    old.run(main())
    del old
    gc.collect()
    # The functions of the classes are asyncio's alone again, or the second module's.
    ouroloop.run(main())
    asyncio.run(main())
else:
    ouroloop.run(main())
    if mode == "trace":
        ouroloop.run(read_traced())
    elif mode == "kept":
        ouroloop.run(read_much())
