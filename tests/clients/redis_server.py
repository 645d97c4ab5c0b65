"""A Redis server of its own, on TCP, TLS and a Unix socket, that keeps nothing on disk."""

import contextlib
import os

from .processes import background, free_port, program

SETTINGS = """
bind 127.0.0.1
port {port}
unixsocket {directory}/redis.sock
tls-port {tls_port}
tls-cert-file {certificates.server}
tls-key-file {certificates.server}
tls-ca-cert-file {certificates.authority}
tls-auth-clients yes
save ""
appendonly no
dir {directory}
"""


@contextlib.contextmanager
def serve(directory, certificates):
    redis = program("redis-server", "redis-server")
    port, tls_port = free_port(), free_port()
    settings = os.path.join(directory, "redis.conf")
    with open(settings, "w") as file:
        file.write(
            SETTINGS.format(
                port=port, tls_port=tls_port, directory=directory, certificates=certificates
            )
        )
    with background([redis, settings], port, log=os.path.join(directory, "redis.log")):
        yield {
            "REDIS_URL": f"redis://127.0.0.1:{port}",
            "REDIS_TLS_URL": f"rediss://localhost:{tls_port}",
            "REDIS_SOCKET": os.path.join(directory, "redis.sock"),
        }
