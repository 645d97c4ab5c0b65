"""Start a server for the length of a `with` block."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time

START_LIMIT_SECONDS = 60
STOP_LIMIT_SECONDS = 20


class Failure(Exception):
    """What keeps a comparison from being made, for the user to read."""


def program(name, package, *directories):
    """The path of an executable, looked for in PATH and some directories more."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", *directories])
    found = shutil.which(name, path=path)
    if found is None:
        raise Failure(f"{name} is missing (on Debian: apt-get install {package})")
    return found


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def unprivileged_user(*names):
    """The first of these accounts if this is root, else None: some servers refuse to be root."""
    if os.geteuid() != 0:
        return None
    for name in names:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise Failure(f"there is no account {' or '.join(names)} to run a server as")


def answers(port):
    """Whether somebody listens there."""
    with socket.socket() as sock:
        sock.settimeout(5)
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def background(command, port, *, log, user=None, stop_signal=signal.SIGTERM):
    """Run a server until the block ends; the block begins when the port answers."""
    with open(log, "wb") as output:
        server = subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
        )
    try:
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not answers(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"{command[0]} does not start:\n{tail(log)}")
            time.sleep(0.05)
        yield server
        if server.poll() is not None:
            raise Failure(f"{command[0]} ended with {server.returncode}:\n{tail(log)}")
    finally:
        server.send_signal(stop_signal)
        try:
            server.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def tail(path):
    with open(path, errors="replace") as file:
        return file.read()[-4000:]
