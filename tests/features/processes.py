"""Pipes and subprocesses."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import warnings

from network import turns, until
from setups import Notes

from . import at_least, connection, feature, raised

PIPE = subprocess.PIPE


def not_root():
    return None if os.getuid() == 0 else "only root may set it"


async def run(*command, say=None, **options):
    """Status and output of a command."""
    options = {"stdout": PIPE, **options}
    process = await asyncio.create_subprocess_exec(*command, **options)
    out, err = await asyncio.wait_for(process.communicate(say), 20)
    return process.returncode, out, err


@connection("connect_read/write_pipe")
async def pipes(loop, folder):
    reading, writing = os.pipe()
    reader, writer = os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)
    read_end, protocol = await loop.connect_read_pipe(Notes, reader)
    write_end, flow = await loop.connect_write_pipe(Notes, writer)
    assert isinstance(read_end, asyncio.ReadTransport)
    assert isinstance(write_end, asyncio.WriteTransport)
    assert read_end.get_extra_info("pipe") is reader
    assert write_end.get_extra_info("pipe") is writer
    assert write_end.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    write_end.write(b"x" * 1_000_000)
    write_end.write_eof()
    assert await protocol.lost is None
    assert await flow.lost is None
    assert protocol.data == b"x" * 1_000_000
    with open(folder / "file", "wb") as file:
        refusal = await raised(loop.connect_write_pipe(asyncio.BaseProtocol, file))
    return protocol.events, flow.events, refusal


@connection("connect_read/write_pipe")
async def terminals(loop):
    ours, theirs = os.openpty()
    read_end, protocol = await loop.connect_read_pipe(Notes, os.fdopen(ours, "rb", 0))
    write_end, flow = await loop.connect_write_pipe(Notes, os.fdopen(theirs, "wb", 0))
    write_end.write(b"hello")
    await protocol.received()
    assert protocol.data == b"hello"
    write_end.close()
    await flow.lost
    read_end.close()
    await protocol.lost


@connection("subprocess_exec/shell, kill, communicate")
async def subprocesses(loop):
    seen = [await run("cat", stdin=PIPE, say=b"hello" * 100_000)]
    assert seen.pop()[1] == b"hello" * 100_000
    process = await asyncio.create_subprocess_shell(
        "echo out; echo err >&2; exit 3", None, PIPE, PIPE
    )
    seen += [await process.communicate(), await process.wait(), process.returncode]
    for end, expected in (("kill", signal.SIGKILL), ("terminate", signal.SIGTERM)):
        process = await asyncio.create_subprocess_exec("sleep", "60")
        assert process.pid > 0
        getattr(process, end)()
        assert await process.wait() == -expected
    process = await asyncio.create_subprocess_exec("sleep", "60")
    process.send_signal(signal.SIGINT)
    seen.append(await process.wait())
    try:
        process.kill()
    except ProcessLookupError as error:
        seen.append(type(error).__name__)
    seen.append(await raised(run("/does/not/exist")))
    seen.append(await raised(run("true", universal_newlines=True)))
    seen.append(await raised(run("true", bufsize=3)))
    seen.append(await run("sh", "-c", "echo both; echo ways >&2", stderr=subprocess.STDOUT))
    seen.append(await run("sh", "-c", "exit 7", stdout=subprocess.DEVNULL))
    return seen


@connection("subprocess_exec/shell, kill, communicate")
async def subprocess_protocols(loop):
    class Events(asyncio.SubprocessProtocol):
        def __init__(self):
            self.events, self.data = [], b""
            self.lost = loop.create_future()

        def connection_made(self, transport):
            self.events.append("made")

        def pipe_data_received(self, fd, data):
            self.data += data

        def pipe_connection_lost(self, fd, exc):
            self.events.append((fd, exc))

        def process_exited(self):
            self.events.append("exited")

        def connection_lost(self, exc):
            self.events.append("lost")
            self.lost.set_result(exc)

    transport, protocol = await loop.subprocess_exec(Events, "cat")
    transport.get_pipe_transport(0).write(b"hello")
    transport.get_pipe_transport(0).close()
    await asyncio.wait_for(protocol.lost, 20)
    assert protocol.data == b"hello"
    assert transport.get_returncode() == 0
    transport.close()
    assert protocol.events[0] == "made"
    assert protocol.events[-1] == "lost"
    # Which of the pipes and the process ends first is not certain.
    return sorted(map(str, protocol.events))


@connection("child stdio is a pipe (`/dev/stdin` reopen works)")
async def reopened_stdin(loop):
    assert await run("cat", "/dev/stdin", stdin=PIPE, say=b"hello") == (0, b"hello", None)


@feature("os.register_at_fork hooks not run in child")
def at_fork(loop, folder):
    """They cannot be taken back, hence a process of its own."""
    path = folder / "script.py"
    path.write_text(
        f"""
import asyncio, os, sys
os.register_at_fork(after_in_child=lambda: os.write(1, b'in the child'))
sys.path[:0] = {sys.path!r}
import {type(loop).__module__} as module
loop = module.{type(loop).__name__}()
async def main():
    process = await asyncio.create_subprocess_exec('echo', 'hello')
    await process.wait()
asyncio.set_event_loop(loop)
loop.run_until_complete(main())
loop.close()
"""
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", path], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("hello\n", "")


@connection("4 threads each spawning")
async def spawning_threads(loop):
    def thread():
        async def several():
            return await asyncio.gather(*(run("echo", str(n)) for n in range(5)))

        mine = type(loop)()
        asyncio.set_event_loop(mine)
        try:
            results.append(mine.run_until_complete(several()))
        finally:
            asyncio.set_event_loop(None)
            mine.close()

    results = []
    threads = [threading.Thread(target=thread) for _ in range(4)]
    with warnings.catch_warnings():
        # asyncio asks for a child watcher in each thread, on 3.12 and 3.13 with a warning.
        warnings.simplefilter("ignore", DeprecationWarning)
        for each in threads:
            each.start()
        while any(each.is_alive() for each in threads):
            await asyncio.sleep(0.01)
    assert len(results) == 4
    assert all(done[1] == b"%d\n" % n for done_all in results for n, done in enumerate(done_all))


POPEN_OPTIONS = {
    "cwd": ({"cwd": "/"}, "pwd"),
    "env": ({"env": {"PATH": os.environ["PATH"], "MINE": "yes"}}, "echo $MINE"),
    "umask": ({"umask": 0o077}, "umask"),
    "pass_fds": ({"pass_fds": (0,)}, "echo"),
    "close_fds": ({"close_fds": False}, "echo"),
    "start_new_session": (
        {"start_new_session": True},
        "read pid name state ppid pgrp sid rest </proc/$$/stat; [ $$ = $sid ] && echo yes",
    ),
    "preexec_fn": ({"preexec_fn": os.getpid}, "echo"),
    "restore_signals": ({"restore_signals": False}, "echo"),
    "executable": ({"executable": "/bin/sh"}, "echo $0"),
    "pipesize": ({"pipesize": 65536}, "echo"),
}
if at_least(3, 11):
    POPEN_OPTIONS["process_group"] = ({"process_group": 0}, "echo")


@connection("user/group/umask/pipesize/process_group/extra_groups")
async def popen_arguments(loop):
    seen = {
        name: await run("sh", "-c", command, **options)
        for name, (options, command) in POPEN_OPTIONS.items()
    }
    assert seen["cwd"][1] == b"/\n"
    assert seen["env"][1] == b"yes\n"
    assert seen["umask"][1] == b"0077\n"
    assert seen["start_new_session"][1] == b"yes\n"
    return seen


@connection("user/group/umask/pipesize/process_group/extra_groups", needs=not_root)
async def popen_arguments_of_root(loop):
    options = {"user": 65534, "group": 65533, "extra_groups": [65532]}
    seen = await run("id", "-u", **options), await run("id", "-G", **options)
    assert seen[0][1] == b"65534\n"
    return seen


@connection("Process.wait() although a grandchild holds stdout")
async def grandchildren(loop):
    """Whether it waits for the end of the pipe depends on the version."""
    process = await asyncio.create_subprocess_shell("sleep 60 & echo $!; read l", PIPE, PIPE)
    grandchild = int(await process.stdout.readline())
    waiting = asyncio.ensure_future(process.wait())
    await asyncio.sleep(0)
    process.stdin.close()
    await until(lambda: process.returncode is not None)
    await turns(10)
    early = waiting.done()
    os.kill(grandchild, signal.SIGKILL)
    assert await asyncio.wait_for(waiting, 20) == 1
    assert await process.stdout.read() == b""
    return early
