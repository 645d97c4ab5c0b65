"""A stream over the network: a server and three clients on 127.0.0.1."""

import asyncio


async def handle(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.write(b"bye\n")
    writer.close()


async def client(port, name, lines):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    replies = []
    for line in lines:
        writer.write(f"{name}: {line}\n".encode())
        replies.append((await reader.readline()).decode().strip())
    writer.write_eof()
    replies.append((await reader.read()).decode().strip())
    writer.close()
    await writer.wait_closed()
    return replies


async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    jobs = [client(port, f"client {n}", ["hello", "x" * 10 * n, "end"]) for n in range(3)]
    for replies in await asyncio.gather(*jobs):
        print(replies)

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.writelines([b"a" * 300_000, b"\n"])
    reply = await reader.readexactly(300_001)
    print("big line:", len(reply), reply[:3], reply[-2:])
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    try:
        await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError as error:
        print("ConnectionRefusedError", error.errno)


asyncio.run(main())
