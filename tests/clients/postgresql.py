"""A PostgreSQL server of its own, with TLS and a password over TCP, in a new directory."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from glob import glob

from .processes import Failure, background, free_port, program, unprivileged_user

PASSWORD = "correct horse battery staple"
# Nothing here is worth keeping, so nothing waits for the disk.
SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{directory}'
ssl = on
ssl_cert_file = '{directory}/server.pem'
ssl_key_file = '{directory}/server.pem'
fsync = off
full_page_writes = off
timezone = 'UTC'
"""
ACCESS = """
local all all trust
host all all 127.0.0.1/32 scram-sha-256
"""


@contextlib.contextmanager
def serve(directory, certificates):
    # Debian keeps the server's programs of each version in a directory of its own.
    directories = sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True)
    initdb = program("initdb", "postgresql", *directories)
    postgres = os.path.join(os.path.dirname(os.path.realpath(initdb)), "postgres")
    user = unprivileged_user("postgres", "nobody")
    home = os.path.join(directory, "postgresql")
    data = os.path.join(home, "data")
    password = os.path.join(home, "password")
    key = os.path.join(home, "server.pem")
    os.mkdir(home, 0o700)
    shutil.copy(certificates.server, key)
    os.chmod(key, 0o600)
    with open(password, "w") as file:
        file.write(PASSWORD)
    if user is not None:
        account = pwd.getpwnam(user)
        for path in (home, key, password):
            os.chown(path, account.pw_uid, account.pw_gid)
    made = subprocess.run(
        [
            *(initdb, "-D", data, "-U", "examples", f"--pwfile={password}", "--no-sync"),
            *("--encoding=UTF8", "--locale=C"),
            *("--auth-local=trust", "--auth-host=scram-sha-256"),
        ],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        user=user,
        timeout=120,
    )
    if made.returncode:
        raise Failure(f"initdb failed: {made.stdout}{made.stderr}")
    port = free_port()
    with open(os.path.join(data, "postgresql.conf"), "a") as file:
        file.write(SETTINGS.format(port=port, directory=home))
    with open(os.path.join(data, "pg_hba.conf"), "w") as file:
        file.write(ACCESS)
    log = os.path.join(directory, "postgresql.log")
    # SIGINT is its "fast shutdown": it does not wait for clients to leave.
    with background([postgres, "-D", data], port, log=log, user=user, stop_signal=signal.SIGINT):
        yield {
            "PGHOST": "localhost",
            "PGPORT": str(port),
            "PGUSER": "examples",
            "PGPASSWORD": PASSWORD,
            "PGDATABASE": "postgres",
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": certificates.authority,
            "POSTGRESQL_SOCKET_DIRECTORY": home,
        }
