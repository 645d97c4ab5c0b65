"""A TLS client of asyncio's against OpenSSL's own server: versions, certificates, ALPN, sessions.

SERVER_CERT holds the server's certificate and key, CLIENT_CERT the client's, SSL_CERT_FILE the
authority of both.
"""

import asyncio
import contextlib
import os
import ssl

AUTHORITY = os.environ["SSL_CERT_FILE"]
TIMEOUT = 20


class ResumingContext(ssl.SSLContext):
    """Offers the session of an earlier connection."""

    session = None

    def wrap_bio(self, *args, **kwargs):
        kwargs["session"] = self.session
        return super().wrap_bio(*args, **kwargs)


def new_context(certificate=None):
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(AUTHORITY)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


@contextlib.asynccontextmanager
async def openssl(*arguments):
    """The port of an `openssl s_server` that sends each line back reversed."""
    server = await asyncio.create_subprocess_exec(
        *("openssl", "s_server", "-accept", "127.0.0.1:0", "-rev", "-CAfile", AUTHORITY),
        *("-cert", os.environ["SERVER_CERT"], "-alpn", "http/1.1", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        while not (line := await server.stdout.readline()).startswith(b"ACCEPT"):
            if not line:
                raise RuntimeError("openssl s_server does not start")
        # What it says later nobody reads: it is less than a pipe holds.
        yield int(line.rsplit(b":", 1)[1])
    finally:
        server.terminate()
        await asyncio.wait_for(server.communicate(), TIMEOUT)


async def converse(port, context, lines=3, **options):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost", limit=1 << 20, **options
    )
    tls = writer.get_extra_info("ssl_object")
    size = 0
    for n in range(lines):
        writer.write(b"%d reversed " % n * (1 + n % 100 * 10) + b"\n")
        await writer.drain()
        size += len(line := await asyncio.wait_for(reader.readline(), TIMEOUT))
    context.session = tls.session
    names = dict(part[0] for part in writer.get_extra_info("peercert")["issuer"])
    print(
        *(tls.version(), tls.selected_alpn_protocol(), "reused:", tls.session_reused),
        *(names["organizationName"], size, line[-12:]),
    )
    # s_server answers CLOSE by closing.
    writer.write(b"CLOSE\n")
    print("end:", await asyncio.wait_for(reader.read(), TIMEOUT))
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def try_to(talk):
    try:
        await talk
    except (OSError, asyncio.TimeoutError) as error:
        print(type(error).__name__, getattr(error, "reason", None))


async def main():
    for version in ("-tls1_2", "-tls1_3"):
        async with openssl(version) as port:
            context = new_context()
            for _ in range(2):
                await converse(port, context)
            await converse(port, new_context(), lines=200)
        async with openssl(version, "-Verify", "1", "-verify_return_error") as port:
            await converse(port, new_context(os.environ["CLIENT_CERT"]))
            await try_to(converse(port, new_context()))
    async with openssl("-tls1_2") as port:
        # Nothing of this authority's is trusted; and a name that the certificate does not have.
        await try_to(converse(port, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)))
        context = new_context()
        await try_to(asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="x"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        await try_to(converse(port, context))


asyncio.run(main())
