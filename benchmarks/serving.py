"""A server under test in one process, its peer in another, and the CPU time between them.

The script of a subject (``tls.py``, ``bulk.py``, ...) is run in two roles:

    SCRIPT serve KIND LOOP CPU FOLDER         prints its address, serves until stdin ends
    SCRIPT load PEER CPU ADDRESS PID COUNT    prints the CPU ns per operation of process PID

Servers run on the loop that is measured. Peers know no loop: they are the C program
``c/load.c`` or, where TLS or a stream without answers is wanted, blocking sockets in Python.
What is measured is the CPU time of the server's process alone, so a peer may cost what it
likes as long as it is the same for all loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

from harness import HERE, Backend, Settings, Unavailable, pin, run_python

FLOOR = "libuv"
# More than any benchmark has connections.
OPEN_FILES = 6_000
BUILD = HERE.parent / ".dev" / "benchmarks"
# Starts a server, which may keep files in the folder; its address, and what must stay alive.
Start = Callable[[Path], Awaitable[tuple[str, object]]]
# A peer's terms: the server's address, its CPU clock in ns, operations; CPU ns per operation.
Clock = Callable[[], int]
Peer = Callable[[str, Clock, int], float]


def main(servers: Mapping[str, Start], peers: Mapping[str, Peer] | None = None) -> None:
    """Be the server or the peer that the command line names."""
    role, kind, *rest = sys.argv[1:]
    if role == "serve":
        loop, cpu, folder = rest
        pin(int(cpu))
        try:
            Backend.load(loop).run(serve(servers[kind], Path(folder)))
        except NotImplementedError as error:
            sys.exit(f"not implemented by {loop} {error}".strip())
        except Unavailable as error:
            sys.exit(str(error))
    else:
        assert peers is not None
        cpu, address, pid, count = rest
        pin(int(cpu))
        clock = process_clock(int(pid))
        print(json.dumps({"cpu_ns": peers[kind](address, clock, int(count))}))


async def serve(start: Start, folder: Path) -> None:
    """Serve until stdin ends."""
    # glibc maps and unmaps stock asyncio's 256 KiB read buffer at each read until a
    # larger block has been freed once, which doubles its cost. A real program has done
    # that long before; here it happens now.
    bytes(4 << 20)
    address, kept = await start(folder)
    print(address, flush=True)
    # A thread waits for the end: it costs nothing while the server works, and every
    # loop has an executor, while not every one can watch a pipe.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    del kept


def process_clock(pid: int) -> Clock:
    """The CPU time of another process in ns: all its threads, user and system."""
    # What clock_getcpuclockid() returns on Linux; Python has it for threads only.
    number = ~pid << 3 | 2
    return lambda: time.clock_gettime_ns(number)


def in_slices(clock: Clock, count: int, operate: Callable[[int], None]) -> float:
    """CPU ns per operation, the median over ten slices after a warm-up of one.

    ``operate(n)`` makes the server do `n` operations, after which it has nothing to do. A
    burst of noise costs a slice.
    """
    slice_count = max(count // 10, 1)
    marks = []
    for _ in range(11):
        operate(slice_count)
        # The kernel brings the clock of another process up to date when that goes to
        # sleep, else only at each tick, every 4 ms.
        time.sleep(0.002)
        marks.append(clock())
    return statistics.median((after - before) / slice_count for before, after in pairwise(marks))


@contextlib.contextmanager
def server(
    script: str, kind: str, loop: str, cpu: int, under: Sequence[str] = ()
) -> Iterator[tuple[str, int]]:
    """A server in a process of its own on core `cpu`, run by the command `under` if there
    is one; its address and process id."""
    raise_open_files()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        if loop == FLOOR:
            command = [compiled("echo_uv", "libuv")]
        else:
            command = [*under, sys.executable, str(HERE / script)]
            command += ["serve", kind, loop, str(cpu), folder]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if loop == FLOOR and hasattr(os, "sched_setaffinity"):
                cores = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(process.pid, {cores[cpu % len(cores)]})
            address = process.stdout.readline().strip()
            if not address:
                process.wait(5)
                errors.seek(0)
                why = errors.read().strip().splitlines()
                raise Unavailable(why[-1] if why else f"the {kind} server did not start")
            yield address, process.pid
        finally:
            process.stdin.close()
            process.stdout.close()
            try:
                process.wait(60 if under else 5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Load:
    """The measurement of server `kind` of `script` under a load of `count` operations."""

    script: str
    kind: str
    count: int
    prepare: Callable[[], None] = field(default=lambda: None, kw_only=True)

    def __call__(self, loop: str, settings: Settings) -> float:
        """The server's CPU ns per operation."""
        self.prepare()
        count = max(self.count // settings.shrink, 10)
        with server(self.script, self.kind, loop, settings.server_cpu) as (address, pid):
            answer = self.run(address, pid, count, settings.client_cpu)
        return float(json.loads(answer)["cpu_ns"])

    def run(self, address: str, pid: int, count: int, cpu: int) -> str:
        """Make `count` operations, and a tenth before; what the client printed."""
        raise NotImplementedError


@dataclass(frozen=True)
class CLoad(Load):
    """The load of ``c/load.c``."""

    protocol: str
    sockets: int
    size: int

    def run(self, address: str, pid: int, count: int, cpu: int) -> str:
        if not sys.platform.startswith("linux"):
            raise Unavailable("the load generator is written for Linux")
        numbers = [pid, self.sockets, self.size, count]
        done = subprocess.run(
            [compiled("load"), self.protocol, address, *map(str, numbers)],
            check=False,
            capture_output=True,
            text=True,
            preexec_fn=lambda: pin(cpu),
        )
        if done.returncode:
            # A negative code is the client's own alarm: the server fell silent.
            raise Unavailable(done.stderr.strip() or "the server stopped answering")
        return done.stdout


@dataclass(frozen=True)
class PeerLoad(Load):
    """The load of a peer in the same script."""

    peer: str

    def run(self, address: str, pid: int, count: int, cpu: int) -> str:
        numbers = map(str, (cpu, address, pid, count))
        return run_python(self.script, "load", self.peer, *numbers, timeout=60)


@cache
def compiled(name: str, *packages: str) -> str:
    """Compile ``c/<name>.c`` unless that is done already; the program's path."""
    source, target = HERE / "c" / f"{name}.c", BUILD / name
    if target.exists() and target.stat().st_mtime > source.stat().st_mtime:
        return str(target)
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Unavailable("the servers' benchmarks need a C compiler")
    flags = []
    try:
        if packages:
            command = ["pkg-config", "--cflags", "--libs", *packages]
            flags = subprocess.check_output(command, text=True).split()
        BUILD.mkdir(parents=True, exist_ok=True)
        command = [compiler, "-O2", "-Wall", str(source), "-o", str(target), *flags]
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"cannot build {source.name}: {error}") from error
    return str(target)


def raise_open_files() -> None:
    """Let this process and those it starts open OPEN_FILES, or what the system allows."""
    # Not on Windows, where nothing here runs but the module is still to be imported.
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
