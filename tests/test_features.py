"""What asyncio's loops can do, row by row: on ouroloop each is as on stock asyncio.

The rows of a table that compares event loops. Their probes are in features/: each runs on both
loops, must succeed on both, and must give the same on both. What needs a process of its own is a
script of isolated/. Rows about wheels, other systems than POSIX, typing, the size of the library
and the time that something takes are not here: the first four have no behaviour to probe, and the
last is the business of benchmarks/.
"""

import importlib
import sys

import pytest
from features import PROBES
from outcome import Outcome, stock_loop

for name in ("connections", "datagrams", "descriptors", "encrypted", "processes", "scheduling"):
    importlib.import_module(f"features.{name}")

ALL = (3, 10)

# Row -> the version of Python that brought it.
ROWS = {
    "call_soon / threadsafe + context=": ALL,
    "Handle is asyncio.Handle, get_context()": ALL,
    "TimerHandle <, isinstance": ALL,
    "call_later(0)/(-1) returns TimerHandle": ALL,
    "timers never early": ALL,
    "time() == time.monotonic()": ALL,
    "use after close -> RuntimeError": ALL,
    "loop already running / another loop errors": ALL,
    "create_task(name,context,eager_start)": ALL,
    "asyncio.create_task(eager_start=True)": (3, 14),
    "eager_task_factory": (3, 12),
    "custom task factory kwargs": ALL,
    "set/call_exception_handler": ALL,
    "protocol callback raises -> fatal, connection_lost(exc)": ALL,
    "SystemExit in callback propagates": ALL,
    "set_debug + slow_callback_duration log": ALL,
    "debug: wrong-thread call_soon / coro fn / non-callable": ALL,
    "debug: source_traceback on Handle / Future": ALL,
    "asyncgen hooks, shutdown_asyncgens": ALL,
    "default executor thread name": ALL,
    "set_default_executor(3) TypeError; shutdown(timeout=)": ALL,
    "Ctrl-C: idle loop": ALL,
    "Python signal.signal handler runs promptly": ALL,
    "add/remove_signal_handler": ALL,
    "wakeup_fd restored on close": ALL,
    "add_reader(sock object)": ALL,
    "add_reader on a transport's fd -> RuntimeError": ALL,
    "sock_recv/recv_into/sendall/connect/accept": ALL,
    "sock_recvfrom/recvfrom_into/sendto": (3, 11),
    "sock_sendfile / sendfile (tcp, tls fallback)": ALL,
    "create_connection host/port/local_addr": ALL,
    "happy_eyeballs_delay, interleave, all_errors": ALL,
    "create_connection(sock=unix socketpair)": ALL,
    "create_server: multi host, backlog, start_serving, reuse_port": ALL,
    "create_server(keep_alive=)": (3, 13),
    "Server.close_clients / abort_clients": (3, 13),
    "Server.wait_closed waits for clients": (3, 12),
    "Server isinstance AbstractServer": ALL,
    "isinstance(t, asyncio.Transport / DatagramTransport)": ALL,
    "weakref(transport)": ALL,
    "write limits default (low, high)": ALL,
    "write(None) -> TypeError": ALL,
    "write after connection lost warns": ALL,
    "write_eof half close -> connection_lost": ALL,
    "set_protocol": ALL,
    "get_extra_info socket type": ALL,
    "TLS client/server, start_tls, ssl_*_timeout": ALL,
    "StreamWriter.start_tls": (3, 11),
    "connect_accepted_socket": ALL,
    "BufferedProtocol tcp / tls (sizehint)": ALL,
    "unix client/server; cleanup_socket": ALL,
    "unix abstract `\\0name`": ALL,
    "unix TLS": ALL,
    "UDP basic, reuse_port, allow_broadcast, sock=": ALL,
    "UDP empty datagram delivered": ALL,
    "UDP error_received (ECONNREFUSED, EMSGSIZE)": ALL,
    "UDP AF_UNIX local_addr=path": ALL,
    "connect_read/write_pipe": ALL,
    "subprocess_exec/shell, kill, communicate": ALL,
    "child stdio is a pipe (`/dev/stdin` reopen works)": ALL,
    "os.register_at_fork hooks not run in child": ALL,
    "4 threads each spawning": ALL,
    "user/group/umask/pipesize/process_group/extra_groups": ALL,
    "Process.wait() although a grandchild holds stdout": ALL,
    "getaddrinfo/getnameinfo": ALL,
    "contextvars in protocol callbacks, client": ALL,
    "same, server (captured at create_server from 3.15 on)": ALL,
    "asyncio ps / pstree, call graph": (3, 14),
    "all_tasks, TaskGroup, timeout, gather, to_thread, run_coroutine_threadsafe": ALL,
    "streams: open_connection, start_server": ALL,
    "new loop in forked child": ALL,
    "child closing the inherited loop keeps parent's epoll intact": ALL,
    "fds per loop; after 20 loops closed": ALL,
    "create/run/close a loop, many times": ALL,
    "subinterpreter (own GIL)": (3, 12),
    "subclassable, __dict__, weakref loop": ALL,
    "nest_asyncio-type privates (_ready, _scheduled, _selector, _run_once)": ALL,
    "EventLoopPolicy / install() / run()": ALL,
    "Task(context=) and Future.__init__ twice are checked": (3, 15),
    "run_until_complete and Runner.run take any awaitable": (3, 14),
}

# Rows that need a process of their own: the arguments of a script of isolated/.
SCRIPTS = {
    "Ctrl-C: idle loop": ("ctrl_c.py", "sleeping"),
    "asyncio ps / pstree, call graph": ("asyncio_ps.py",),
    "new loop in forked child": ("forks.py", "running"),
    "child closing the inherited loop keeps parent's epoll intact": ("forks.py", "idle"),
    "subinterpreter (own GIL)": ("subinterpreters.py", "one"),
    "EventLoopPolicy / install() / run()": ("policies.py", "install"),
}

CASES = [
    pytest.param(row, probe, id=f"{row}: {probe.__name__}") for row in ROWS for probe in PROBES[row]
]


def test_every_row_has_a_probe_and_every_probe_a_row():
    assert set(ROWS) == {*SCRIPTS, *(row for row, probes in PROBES.items() if probes)}
    assert all(probe.since >= ROWS[row] for row, probe in [case.values for case in CASES])


def reached(since):
    if sys.version_info < since:
        pytest.skip(f"asyncio has it from {since[0]}.{since[1]} on")


def run(probe, loop, folder, reports):
    """What a probe gives and what is reported, in words that do not depend on the loop."""
    value = probe(loop, folder) if probe.wants_folder else probe(loop)
    return Outcome.text(value), [report["message"][:22] for report in reports]


@pytest.fixture
def stock(reports):
    """A loop of the standard library that reports as the `loop` fixture's does."""
    loop = stock_loop()
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    yield loop
    if not loop.is_closed():
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.parametrize(("row", "probe"), CASES)
def test_feature(row, probe, stock, loop, reports, tmp_path_factory):
    reached(probe.since)
    if probe.needs is not None and (reason := probe.needs()):
        pytest.skip(reason)
    results = []
    for each in (stock, loop):
        # A short name: the path of a Unix socket has little room.
        results.append(run(probe, each, tmp_path_factory.mktemp("f"), reports))
        reports.clear()
    assert results[1] == results[0]


@pytest.mark.parametrize("row", SCRIPTS)
def test_feature_in_a_process(row, run_script):
    reached(ROWS[row])
    done = run_script(*SCRIPTS[row], timeout=120)
    if done.stdout == "not permitted\n" or done.stdout.startswith("skip: "):
        pytest.skip(done.stdout.strip())
    assert done.stdout.splitlines()[0] == "ok", done.stderr
