"""Run each program of examples/clients on stock asyncio and on ouroloop and compare the two runs.

What it prints, on both streams, and its status must be the same.
"""

import argparse
import contextlib
import dataclasses
import difflib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from . import certificates, nginx, postgresql, redis_server
from .processes import Failure, program

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(PROJECT, "examples", "clients")
LIMIT_SECONDS = 90


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a program needs: packages of Python, commands, and a server that is running."""

    packages: tuple = ()
    commands: tuple = ()
    server: object = None


PROGRAMS = {
    "postgresql_asyncpg.py": Needs(("asyncpg",), server=postgresql),
    "postgresql_psycopg.py": Needs(("psycopg",), server=postgresql),
    "redis_py.py": Needs(("redis",), server=redis_server),
    "nginx_aiohttp.py": Needs(("aiohttp",), server=nginx),
    "openssl_s_client.py": Needs(commands=("openssl",)),
    "openssl_s_server.py": Needs(commands=("openssl",)),
    "aiohttp_both.py": Needs(("aiohttp",)),
    "uvicorn_curl.py": Needs(("uvicorn", "httptools"), commands=("curl",)),
    "websockets_both.py": Needs(("websockets",)),
}

LOOPS = {
    "asyncio": ([], "asyncio:SelectorEventLoop"),
    "ouroloop": (["-m", "ouroloop"], "ouroloop:new_event_loop"),
}


@dataclasses.dataclass
class Run:
    """How a program ended on one loop."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    def lines(self):
        return [
            *self.stdout.splitlines(),
            *(f"stderr: {line}" for line in self.stderr.splitlines()),
            f"status {self.status}",
        ]


def missing(needs):
    """What is not there of it, in words; an empty list if nothing is missing."""
    found = [name for name in needs.packages if importlib.util.find_spec(name) is None]
    for command in needs.commands:
        try:
            program(command, command)
        except Failure as failure:
            found.append(str(failure))
    return found


def run(name, loop, environment):
    """Run one program to its end, or for LIMIT_SECONDS, with all that it started."""
    options, uvicorn_loop = LOOPS[loop]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *options, os.path.join(FOLDER, name)],
        cwd=FOLDER,
        env={**environment, "UVICORN_LOOP": uvicorn_loop},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        end_session(process)
        stdout, stderr = process.communicate()
        stderr += f"\nno end within {LIMIT_SECONDS} s"
    finally:
        # Its children too, should it have left some.
        end_session(process)
    return Run(process.returncode, normalise(stdout), normalise(stderr), time.monotonic() - started)


def end_session(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def normalise(text):
    """Take out what differs from run to run: addresses and line numbers."""
    text = re.sub(r"0x[0-9a-fA-F]+", "0x...", text)
    return re.sub(r"(\.py:|line )\d+", r"\1N", text)


def compare(name, environment, show=False):
    """Run on both loops; the lines of a report, and whether all is well."""
    stock, ours = (run(name, loop, environment) for loop in LOOPS)
    problems = []
    if stock.status != 0 or stock.stderr:
        problems += ["on stock asyncio:", *stock.lines()]
    if not stock.stdout:
        problems.append("it prints nothing to compare")
    if ours.lines() != stock.lines():
        problems += difflib.unified_diff(
            stock.lines(), ours.lines(), "asyncio", "ouroloop", lineterm=""
        )
    result = "FAILED" if problems else "same"
    printed = len(stock.stdout.splitlines())
    head = f"{name:<24}{result:<8}{printed:>4} lines {stock.seconds:6.1f} s {ours.seconds:6.1f} s"
    shown = stock.lines() if show and not problems else problems
    return [head, *(f"    {line}" for line in shown)], not problems


@contextlib.contextmanager
def prepared():
    """A directory that other users can read, certificates in it, variables that name them."""
    with tempfile.TemporaryDirectory(prefix="ouroloop-clients-") as directory:
        os.chmod(directory, 0o755)
        made = certificates.make(directory)
        environment = {
            name: value
            for name, value in os.environ.items()
            # The machine's own ideas of a proxy, of PostgreSQL or of debug mode are out of place.
            if not name.lower().endswith("_proxy") and not name.startswith(("PG", "PYTHONASYNCIO"))
        }
        environment |= {
            "SSL_CERT_FILE": made.authority,
            "SERVER_CERT": made.server,
            "CLIENT_CERT": made.client,
        }
        yield directory, made, environment


def main():
    parser = argparse.ArgumentParser(prog="./dev clients", description=__doc__)
    parser.add_argument(
        "programs", nargs="*", metavar="PROGRAM", help=f"default: {' '.join(PROGRAMS)}"
    )
    parser.add_argument("--show", action="store_true", help="what the programs print as well")
    arguments = parser.parse_args()
    chosen = arguments.programs or list(PROGRAMS)
    unknown = [name for name in chosen if name not in PROGRAMS]
    if unknown:
        parser.error(f"no such program: {' '.join(unknown)}")
    failed = []
    print(f"{'':<24}{'result':<8}{'printed':>10} {'asyncio':>8} {'ouroloop':>8}")
    with contextlib.ExitStack() as stack:
        directory, made, environment = stack.enter_context(prepared())
        for name in chosen:
            needs = PROGRAMS[name]
            lacking = missing(needs)
            if lacking:
                print(f"{name:<24}FAILED  missing: {'; '.join(lacking)}")
                failed.append(name)
                continue
            try:
                with contextlib.ExitStack() as servers:
                    variables = {}
                    if needs.server is not None:
                        folder = tempfile.mkdtemp(dir=directory)
                        os.chmod(folder, 0o755)
                        variables = servers.enter_context(needs.server.serve(folder, made))
                    report, well = compare(name, environment | variables, arguments.show)
            except Failure as failure:
                report, well = [f"{name:<24}FAILED  {failure}"], False
            print("\n".join(report), flush=True)
            if not well:
                failed.append(name)
    if failed:
        print(f"FAILED: {', '.join(failed)}")
        return 1
    print(f"{len(chosen)} passed: the same on asyncio and on ouroloop")
    return 0
