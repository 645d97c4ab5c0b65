"""A TLS server of asyncio's, tried by OpenSSL's own client: versions, certificates, ALPN, sessions.

SERVER_CERT holds the server's certificate and key, CLIENT_CERT the client's, SSL_CERT_FILE the
authority of both.
"""

import asyncio
import os
import ssl
import tempfile

AUTHORITY = os.environ["SSL_CERT_FILE"]
TIMEOUT = 20


async def answer(reader, writer):
    tls = writer.get_extra_info("ssl_object")
    peer = writer.get_extra_info("peercert")
    names = dict(part[0] for part in peer["subject"]) if peer else {}
    writer.write(
        f"{tls.version()} {tls.selected_alpn_protocol()} session reused: {tls.session_reused} "
        f"client: {names.get('commonName')}\n".encode()
    )
    size = 0
    while line := await reader.readline():
        if line == b"bye\n":
            break
        size += len(line)
        writer.write(line.upper() if len(line) < 100 else b"%d\n" % len(line))
        await writer.drain()
    writer.write(b"%d bytes came\n" % size)
    writer.close()
    await writer.wait_closed()


async def openssl(port, *arguments, say=b"hello\nbye\n"):
    """What `openssl s_client` prints, and whether it was content."""
    client = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"localhost:{port}", "-servername", "localhost"),
        *("-CAfile", AUTHORITY, "-verify_return_error", "-quiet", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await asyncio.wait_for(client.communicate(say), TIMEOUT)
    return client.returncode == 0, out.decode()


async def converse(port, version, folder):
    print(version)
    print(*await openssl(port, version))
    print(*await openssl(port, version, "-alpn", "spdy,http/1.1"))
    print(*await openssl(port, version, "-cert", os.environ["CLIENT_CERT"]))
    session = os.path.join(folder, f"session{version}")
    print(*await openssl(port, version, "-sess_out", session))
    print(*await openssl(port, version, "-sess_in", session))
    lines = b"".join(b"%d" % (n % 10) * 4095 + b"\n" for n in range(500))
    ok, out = await openssl(port, version, say=lines + b"bye\n")
    print(ok, out.count("4096\n"), out.splitlines()[-1])


async def refusals(port):
    """A client that trusts another authority, one of an old version, one that talks no TLS."""
    print(*await openssl(port, "-no-CAfile", "-CAfile", os.devnull))
    print(*await openssl(port, "-tls1_1"))
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    print("alert" if await asyncio.wait_for(reader.read(), TIMEOUT) else "nothing")
    writer.close()


async def main():
    # What clients do wrong goes to the loop's exception handler: only how many matters here.
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: reported.append(what))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=AUTHORITY)
    context.load_cert_chain(os.environ["SERVER_CERT"])
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = ssl.CERT_OPTIONAL
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with tempfile.TemporaryDirectory() as folder:
            for version in ("-tls1_2", "-tls1_3"):
                await converse(port, version, folder)
        await refusals(port)
    print("reported:", [type(what.get("exception")).__name__ for what in reported])


asyncio.run(main())
