"""csrc/dns.c: name lookups answer and fail as on stock asyncio, and never hold a loop up."""

import _socket
import asyncio
import concurrent.futures
import os
import shutil
import socket
import subprocess
import sys
import threading

import ouroloop
import pytest
from outcome import Cases, on_both

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each

HOSTS = (
    "127.0.0.1",
    "::1",
    "fe80::1%lo",
    "127.1",
    "0x7f.1",
    "localhost",
    "LOCALHOST.",
    "nowhere.invalid",
    "",
    ".",
    "a..b",
    ".localhost",
    "x" * 63 + ".invalid",
    "x" * 64 + ".invalid",
    "x" * 300,
    "spaces in it",
    "b\xfccher.invalid",
    "\u2603.invalid",
    "\ud800",
    "nul\0",
    b"127.0.0.1",
    b"localhost",
    b"nul\0",
    b"",
    b"\xff",
    bytearray(b"127.0.0.1"),
    type("Text", (str,), {})("127.0.0.1"),
    None,
    5,
    ("127.0.0.1",),
)
PORTS = (
    0,
    80,
    65535,
    65536,
    -1,
    1 << 31,
    1 << 80,
    True,
    "80",
    "http",
    "no-such-service",
    "",
    "nul\0",
    "\xfc",
    "080",
    " 80",
    b"80",
    b"http",
    None,
    8.0,
    [80],
)
OPTIONS = (
    {"family": socket.AF_INET},
    {"family": socket.AF_INET6},
    {"family": socket.AF_UNIX},
    {"family": 12345},
    {"family": None},
    {"family": "AF_INET"},
    {"family": 1 << 40},
    {"type": socket.SOCK_STREAM},
    {"type": socket.SOCK_DGRAM},
    {"type": socket.SOCK_RAW},
    {"type": 4321},
    {"proto": socket.IPPROTO_TCP},
    {"proto": socket.IPPROTO_UDP},
    {"proto": 255},
    {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_UDP},
    {"flags": socket.AI_PASSIVE},
    {"flags": socket.AI_CANONNAME},
    {"flags": socket.AI_NUMERICHOST},
    {"flags": socket.AI_NUMERICSERV},
    {"flags": socket.AI_ADDRCONFIG | socket.AI_V4MAPPED},
    {"flags": 1 << 30},
    {"flags": -1},
    {"unknown": 1},
)


def lookup(loop, *arguments, **options):
    async def main():
        found = await loop.getaddrinfo(*arguments, **options)
        return found, [[type(part).__name__ for part in entry] for entry in found]

    return loop.run_until_complete(main())


@cases(*HOSTS)
def host(loop, host):
    return lookup(loop, host, 80, type=socket.SOCK_STREAM)


@cases(*PORTS)
def port(loop, port):
    return lookup(loop, "127.0.0.1", port, type=socket.SOCK_STREAM)


@cases(*PORTS)
def port_of_a_name(loop, port):
    return lookup(loop, "localhost", port, type=socket.SOCK_STREAM)


@cases(*OPTIONS)
def options(loop, options):
    return lookup(loop, "127.0.0.1", 80, **options)


@cases(*OPTIONS)
def options_of_a_name(loop, options):
    return lookup(loop, "localhost", "http", **options)


@cases(*OPTIONS)
def options_without_host(loop, options):
    return lookup(loop, None, 80, **options)


@case
def neither_host_nor_port(loop):
    return lookup(loop, None, None)


@case
def too_many_arguments(loop):
    return lookup(loop, "127.0.0.1", 80, socket.AF_INET)


@cases(
    ("127.0.0.1", 80),
    ("127.0.0.1", 0),
    ("127.0.0.1", 80, 0),
    ("127.0.0.1", 80, 0, 0),
    ("127.0.0.1", -1),
    ("127.0.0.1", 65536),
    ("127.0.0.1", "80"),
    ("127.0.0.1", 80.0),
    ("127.0.0.1", True),
    ("::1", 80),
    ("::1", 80, 0),
    ("::1", 80, 5, 1),
    ("::1", 80, 1 << 20, 0),
    ("::1", 80, 0, 1 << 31),
    ("::1", 80, 0, 0, 0),
    ("::ffff:127.0.0.1", 80),
    ("fe80::1%lo", 80),
    ("192.0.2.1", 80),
    ("localhost", 80),
    ("127.1", 80),
    ("", 80),
    ("\xfc", 80),
    (b"127.0.0.1", 80),
    ("127.0.0.1",),
    (),
    ["127.0.0.1", 80],
    "127.0.0.1",
    None,
)
def name(loop, address):
    async def main():
        return [
            await loop.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
            await loop.getnameinfo(address, flags=socket.NI_NUMERICHOST),
        ]

    return loop.run_until_complete(main())


@cases(
    0,
    socket.NI_NUMERICHOST,
    socket.NI_NUMERICSERV,
    socket.NI_DGRAM,
    socket.NI_NAMEREQD | socket.NI_NUMERICHOST,
    1 << 30,
    -1,
    1 << 40,
    None,
    "0",
)
def name_flags(loop, flags):
    return loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80), flags))


@cases("127.0.0.1", "localhost")
def after_the_end(loop, host):
    loop.run_until_complete(loop.shutdown_default_executor())
    return lookup(loop, host, 80)


@cases("127.0.0.1", "localhost")
def on_a_closed_loop(loop, host):
    loop.close()
    coroutine = loop.getaddrinfo(host, 80)
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case):
    stock, ours = on_both(case)
    assert ours.lines() == stock.lines()


def test_every_answer_that_is_ours_is_the_socket_modules(loop):
    async def main():
        for host in ("127.0.0.1", "::1", "localhost", b"localhost", None, "127.1"):
            for port in (80, "http", "80"):
                for type in (0, socket.SOCK_STREAM):
                    arguments = (host, port, 0, type, 0, 0)
                    answer = loop._lookup_addresses(*arguments)
                    assert isinstance(answer, asyncio.Future)
                    assert await answer == socket.getaddrinfo(*arguments)
        for address in (("127.0.0.1", 80), ("::1", 80), ("::1", 80, 0, 0)):
            answer = loop._lookup_name(address, 0)
            assert isinstance(answer, asyncio.Future)
            assert await answer == socket.getnameinfo(address, 0)

    loop.run_until_complete(main())


def test_what_is_left_to_the_socket_module(loop):
    for arguments in (
        ("b\xfccher", 80, 0, 0, 0, 0),
        ("a..b", 80, 0, 0, 0, 0),
        ("127.0.0.1", -1, 0, 0, 0, 0),
        ("127.0.0.1", 1.0, 0, 0, 0, 0),
        (5, 80, 0, 0, 0, 0),
        ("127.0.0.1", 80, None, 0, 0, 0),
    ):
        assert loop._lookup_addresses(*arguments) is None
    assert loop._lookup_name(("localhost", 80), 0) is None
    assert loop._lookup_name(5, 0) is None
    with pytest.raises(TypeError):
        loop._lookup_addresses("127.0.0.1", 80)
    with pytest.raises(TypeError):
        loop._lookup_name(("127.0.0.1", 80))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_others_run_meanwhile(loop, host):
    log = []

    async def main():
        loop.call_soon(log.append, "other")
        await loop.getaddrinfo(host, 80)
        log.append("found")

    loop.run_until_complete(main())
    assert log == ["other", "found"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "nowhere.invalid"])
def test_cancelled_at_once(loop, host):
    async def main():
        task = loop.create_task(loop.getaddrinfo(host, 80))
        loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        await loop.getaddrinfo("localhost", 80)

    loop.run_until_complete(main())


def test_many_at_once(loop):
    async def main():
        wanted = socket.getaddrinfo("localhost", 80)
        found = await asyncio.gather(*(loop.getaddrinfo("localhost", 80) for _ in range(300)))
        assert found == [wanted] * 300
        names = await asyncio.gather(
            *(loop.getnameinfo(("127.0.0.1", port)) for port in range(1, 100))
        )
        assert names == [socket.getnameinfo(("127.0.0.1", port), 0) for port in range(1, 100)]

    loop.run_until_complete(main())


def test_loops_of_several_threads(loop):
    def run():
        async def main():
            loop = asyncio.get_running_loop()
            for _ in range(50):
                await loop.getaddrinfo("localhost", 80)
            return 50

        other = ouroloop.new_event_loop()
        try:
            return other.run_until_complete(main())
        finally:
            other.close()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert [f.result() for f in [pool.submit(run) for _ in range(4)]] == [50] * 4


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_replaced_function_is_called(loop, monkeypatch, host):
    asked = []

    def getaddrinfo(*args):
        asked.append((threading.current_thread() is threading.main_thread(), args))
        return ["found"]

    def getnameinfo(*args):
        asked.append(args)
        return ("name", "service")

    async def main():
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(socket, "getnameinfo", getnameinfo)
        assert await loop.getaddrinfo(host, 80, family=2, flags=1) == ["found"]
        assert await loop.getnameinfo(("127.0.0.1", 80)) == ("name", "service")
        assert asked == [(False, (host, 80, 2, 0, 0, 1)), (("127.0.0.1", 80), 0)]
        monkeypatch.undo()
        monkeypatch.setattr(_socket, "getaddrinfo", lambda *args: [])
        assert await loop.getaddrinfo(host, 80) == []
        monkeypatch.undo()
        assert await loop.getaddrinfo(host, 80) == socket.getaddrinfo(host, 80)

    loop.run_until_complete(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_users_executor_is_used(loop, host):
    class Executor(concurrent.futures.ThreadPoolExecutor):
        calls = 0

        def submit(self, *args, **kwargs):
            self.calls += 1
            return super().submit(*args, **kwargs)

    async def main():
        await loop.run_in_executor(None, int)
        await loop.getaddrinfo(host, 80)
        executor = Executor(1)
        loop.set_default_executor(executor)
        await loop.getaddrinfo(host, 80)
        await loop.getnameinfo(("127.0.0.1", 80), 0)
        assert executor.calls == 2

    loop.run_until_complete(main())


def test_a_replaced_run_in_executor_is_used(loop):
    async def main():
        async def run_in_executor(*args):
            return args

        loop.run_in_executor = run_in_executor
        assert await loop.getaddrinfo("x", 80) == (None, socket.getaddrinfo, "x", 80, 0, 0, 0, 0)
        del loop.run_in_executor
        await loop.getaddrinfo("127.0.0.1", 80)

    loop.run_until_complete(main())


def test_debug_mode_logs(loop, caplog):
    loop.set_debug(True)
    caplog.set_level("DEBUG", "asyncio")
    loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))
    texts = [r.getMessage() for r in caplog.records]
    assert "Get address info 127.0.0.1:80" in texts


def test_audit_events(run_python):
    run_python(
        [
            "-c",
            """if True:
    import asyncio, socket, sys, ouroloop
    events = []
    def hook(event, args):
        if event in ("socket.getaddrinfo", "socket.getnameinfo"):
            events.append((event, args))
            if args[0] == "forbidden":
                raise ZeroDivisionError("no")
    async def main(loop):
        events.clear()
        await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        await loop.getaddrinfo("127.0.0.1", "80", family=socket.AF_INET, proto=6)
        await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)
        try:
            await loop.getaddrinfo("forbidden", 80)
        except ZeroDivisionError:
            events.append("refused")
        return list(events)
    sys.addaudithook(hook)
    results = []
    for new_event_loop in (asyncio.SelectorEventLoop, ouroloop.new_event_loop):
        loop = new_event_loop()
        results.append(loop.run_until_complete(main(loop)))
        loop.close()
    assert results[0] == results[1] and len(results[0]) == 5, results
    """,
        ]
    )


def test_an_audit_hook_closes_the_loop(run_python):
    run_python(
        [
            "-c",
            """if True:
    import sys, ouroloop
    loop = ouroloop.new_event_loop()
    def hook(event, args):
        if event in ("socket.getaddrinfo", "socket.getnameinfo"):
            loop.close()
    sys.addaudithook(hook)
    for lookup in (
        lambda: loop.getaddrinfo("localhost", 80),
        lambda: loop.getaddrinfo("127.0.0.1", 80),
        lambda: loop.getnameinfo(("127.0.0.1", 80)),
    ):
        loop = ouroloop.new_event_loop()
        try:
            lookup().send(None)
        except RuntimeError as error:
            assert str(error) == "Event loop is closed", error
        else:
            raise AssertionError("no error")
    """,
        ]
    )


# A libc whose lookups of "slow..." take as long as they are told to. So what runs can be met
# in the middle on every machine, and no name server is asked.
SLOW_LIBC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    if (host != NULL && strncmp(host, "slow", 4) == 0) {
        usleep((useconds_t)atoi(host + 4) * 1000);
        host = "127.0.0.1";
    }
    if (host != NULL && strcmp(host, "broken") == 0) {
        errno = EMFILE;
        return EAI_SYSTEM;
    }
    return real(host, service, hints, found);
}
"""

PRELUDE = """
import asyncio, gc, os, signal, socket, sys, threading, time, warnings
import ouroloop

def new_loop():
    return ouroloop.new_event_loop()

async def started(loop, *hosts):
    tasks = [loop.create_task(loop.getaddrinfo(host, 80)) for host in hosts]
    await asyncio.sleep(0.05)
    return tasks
"""


@pytest.fixture(scope="module")
def slow_libc(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler, and LD_PRELOAD")
    directory = tmp_path_factory.mktemp("libc")
    source, library = directory / "slow.c", directory / "slow.so"
    source.write_text(SLOW_LIBC)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True
    )
    return " ".join(filter(None, (os.environ.get("LD_PRELOAD"), str(library))))


@pytest.fixture
def run_slowly(run_python, slow_libc):
    def run(text, **options):
        return run_python(["-c", PRELUDE + text], env={"LD_PRELOAD": slow_libc}, **options)

    return run


def test_a_loop_closes_with_lookups_in_flight(run_slowly):
    # Some run, some are queued behind them; the loop waits for none, its end neither.
    done = run_slowly(
        """
started_at = time.monotonic()
loop = new_loop()
tasks = loop.run_until_complete(started(loop, *["slow20000"] * 50, "slow60"))
loop.close()
del tasks, loop
gc.collect()
loop = new_loop()
found = loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))
assert found == socket.getaddrinfo("127.0.0.1", 80)
loop.close()
print(time.monotonic() - started_at)
"""
    )
    assert float(done.stdout) < 10


def test_what_ends_after_its_loop(run_slowly):
    """It is told to nobody, and what it was told of is not there to be touched."""
    done = run_slowly(
        """
import logging
logging.disable()  # Of the tasks that are destroyed.
for _ in range(20):
    loop = new_loop()
    tasks = loop.run_until_complete(started(loop, *["slow60", "slow51", "slow40", "slow90"]))
    loop.close()
del tasks, loop
gc.collect()
time.sleep(0.3)
loop = new_loop()
assert loop.run_until_complete(loop.getaddrinfo("slow1", 80))
loop.close()
"""
    )
    assert done.stderr == ""


def test_a_loop_that_is_dropped_with_lookups_in_flight(run_slowly):
    done = run_slowly(
        """
import weakref
warnings.simplefilter("ignore")
loop = new_loop()
loop.set_exception_handler(lambda loop, context: None)
tasks = loop.run_until_complete(started(loop, *["slow100"] * 40))
alive = weakref.ref(loop)
del tasks, loop
gc.collect()
assert alive() is None
time.sleep(0.2)
"""
    )
    assert done.stderr == ""


def test_more_than_there_are_threads(run_slowly):
    run_slowly(
        """
async def main():
    loop = asyncio.get_running_loop()
    tasks = await started(loop, *["slow200"] * 100)
    assert len(os.listdir("/proc/self/task")) <= 34
    found = await asyncio.gather(*tasks)
    assert len(found) == 100 and all(found)
loop = new_loop()
loop.run_until_complete(main())
loop.close()
# They end when there is nothing to do for a second.
deadline = time.monotonic() + 20
while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < deadline:
    time.sleep(0.05)
assert len(os.listdir("/proc/self/task")) == 1
"""
    )


def test_the_loop_goes_on_meanwhile(run_slowly):
    run_slowly(
        """
async def main():
    loop = asyncio.get_running_loop()
    task, = await started(loop, "slow600")
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks > 3, ticks
    assert await task == socket.getaddrinfo("127.0.0.1", 80)
loop = new_loop()
loop.run_until_complete(main())
loop.close()
"""
    )


def test_cancelled_while_it_runs(run_slowly):
    run_slowly(
        """
async def main():
    loop = asyncio.get_running_loop()
    tasks = await started(loop, *["slow900"] * 40)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    try:
        await asyncio.wait_for(loop.getaddrinfo("slow5000", 80), 0.05)
    except asyncio.TimeoutError:
        pass
    else:
        raise AssertionError
    await asyncio.sleep(1)
loop = new_loop()
loop.run_until_complete(main())
loop.close()
"""
    )


def test_errors_of_the_system(run_slowly):
    run_slowly(
        """
loop = new_loop()
for lookup in (
    lambda: loop.run_until_complete(loop.getaddrinfo("broken", 80)),
    lambda: socket.getaddrinfo("broken", 80),
):
    try:
        lookup()
    except OSError as error:
        assert type(error) is OSError and error.errno == 24, error
    else:
        raise AssertionError
loop.close()
"""
    )


def test_a_fork_with_lookups_in_flight(run_slowly):
    run_slowly(
        """
warnings.simplefilter("ignore")

async def child():
    loop = asyncio.get_running_loop()
    for host in ("slow1", "127.0.0.1", "localhost"):
        assert await loop.getaddrinfo(host, 80)
    assert len(await asyncio.gather(*(loop.getaddrinfo("slow20", 80) for _ in range(60)))) == 60

async def main():
    loop = asyncio.get_running_loop()
    tasks = await started(loop, *["slow300"] * 40, "slow1")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(20)
            asyncio._set_running_loop(None)
            inner = new_loop()
            inner.run_until_complete(child())
            inner.close()
            status = 0
        finally:
            os._exit(status)
    found = await asyncio.gather(*tasks)
    assert all(found)
    assert os.waitpid(pid, 0)[1] == 0

loop = new_loop()
loop.run_until_complete(main())
loop.close()
"""
    )


def test_a_fork_of_a_loop_that_does_not_run(run_slowly):
    run_slowly(
        """
warnings.simplefilter("ignore")
loop = new_loop()
tasks = loop.run_until_complete(started(loop, *["slow300"] * 40, "slow1"))
pid = os.fork()
if pid == 0:
    status = 1
    try:
        signal.alarm(20)
        for inner in (new_loop(), new_loop()):
            assert inner.run_until_complete(inner.getaddrinfo("slow1", 80))
            inner.close()
        loop.close()
        del loop, tasks
        gc.collect()
        status = 0
    finally:
        os._exit(status)
found = loop.run_until_complete(asyncio.gather(*tasks))
assert len(found) == 41 and all(found)
assert os.waitpid(pid, 0)[1] == 0
loop.close()
"""
    )


def test_a_closed_loop_looks_nothing_up(loop):
    loop.close()
    assert loop._lookup_addresses("localhost", 80, 0, 0, 0, 0) is None
    assert loop._lookup_name(("127.0.0.1", 80), 0) is None


def test_signals_are_for_pythons_threads(run_slowly):
    run_slowly(
        """
got = []
signal.signal(signal.SIGUSR1, lambda *args: got.append(threading.current_thread()))
loop = new_loop()
tasks = loop.run_until_complete(started(loop, *["slow400"] * 8))
os.kill(os.getpid(), signal.SIGUSR1)
# Ends early if the signal has interrupted this thread and not one of those.
time.sleep(0.01)
assert got == [threading.main_thread()]
for task in os.listdir("/proc/self/task"):
    with open(f"/proc/self/task/{task}/status") as status:
        blocked = [line.split()[1] for line in status if line.startswith("SigBlk")][0]
    own = int(task) == os.getpid()
    assert bool(int(blocked, 16) >> (signal.SIGUSR1 - 1) & 1) is not own
loop.run_until_complete(asyncio.gather(*tasks))
loop.close()
"""
    )
