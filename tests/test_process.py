"""ouroloop.process: child processes, compared with asyncio's own and watched to the end."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
import threading
import time
import warnings
from asyncio import unix_events
from subprocess import DEVNULL, PIPE, STDOUT

import ouroloop
import pytest
from network import turns, until
from outcome import Cases, on_both

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each
TIMEOUT = 10
TRUE = "/bin/true"


def run(loop, *command, give=None, **options):
    """Start a command, give it input, wait; what it wrote and its return code."""

    async def main():
        if len(command) == 1:
            process = await asyncio.create_subprocess_shell(*command, **options)
        else:
            process = await asyncio.create_subprocess_exec(*command, **options)
        output = await asyncio.wait_for(process.communicate(give), TIMEOUT)
        return output, process.returncode, await process.wait()

    return loop.run_until_complete(main())


class Told(asyncio.SubprocessProtocol):
    """Keeps the order of its calls."""

    def __init__(self):
        self.calls = []
        self.exited = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.calls.append("made")

    def pipe_data_received(self, fd, data):
        self.calls.append((fd, data))

    def pipe_connection_lost(self, fd, exc):
        self.calls.append((fd, type(exc).__name__))

    def process_exited(self):
        self.calls.append("exited")
        self.exited.set_result(None)

    def connection_lost(self, exc):
        self.calls.append(("lost", exc))
        self.lost.set_result(None)


def tell(loop, command, act=None, **options):
    """The calls of a protocol whose shell runs `command` while `act` is awaited."""

    async def main():
        transport, protocol = await loop.subprocess_shell(Told, command, **options)
        if act is not None:
            await act(transport, protocol)
        await asyncio.wait_for(protocol.lost, TIMEOUT)
        code = transport.get_returncode()
        transport.close()
        return protocol.calls, code, transport.is_closing()

    return loop.run_until_complete(main())


# --- compared with asyncio


@cases("exit 0", "exit 3", "kill -9 $$", "kill -TERM $$", "exit 255", "no-such-command 2>&-")
def return_codes(loop, command):
    return run(loop, command)


@case
def input_and_output(loop):
    return run(loop, "cat; echo x >&2", give=b"in" * 100_000, stdin=PIPE, stdout=PIPE, stderr=PIPE)


@case
def errors_to_output(loop):
    return run(loop, "echo a; echo b >&2", stdout=PIPE, stderr=STDOUT)


def program_that_takes_no_input(loop):
    return run(loop, TRUE, "x", give=b"x" * 1_000_000, stdin=PIPE)


if sys.version_info >= (3, 11):  # Before, asyncio reports the broken pipe now and then.
    case(program_that_takes_no_input)


@cases(
    {"cwd": "/"},
    {"env": {"A": "value"}},
    {"umask": 0o27},
    {"start_new_session": True},
    {"preexec_fn": lambda: os.write(1, b"before\n")},
    {"executable": "/bin/bash"},
    {"pass_fds": (0,)},
    {"close_fds": False},
    {"restore_signals": False},
    {"user": 65534, "group": 65534, "extra_groups": [65534]},
    {"process_group": 0},
    {"pipesize": 4096},
    {"bufsize": 0},
    {"bufsize": 4096},
    {"universal_newlines": True},
    {"text": True},
    {"encoding": "utf-8"},
    {"errors": "strict"},
    {"no_such_argument": 1},
    {"cwd": "/no/such/directory"},
    {"cwd": "/etc/passwd"},
    {"executable": "/no/such/program"},
    {"stdin": 1.5},
    {"stdout": DEVNULL},
    {"stdin": -7},
    {"env": {"a=b": "c"}},
)
def popen_arguments(loop, options):
    script = "pwd; echo $A; umask; echo $0"
    if "user" in options:
        script += "; id -u; id -G"
    if "start_new_session" in options or "process_group" in options:
        script += "; read a b c d group rest </proc/$$/stat; test $$ = $group && echo leader"
    return run(loop, script, **{"stdout": PIPE, **options})


@cases("/no/such/program", "/etc/passwd", "/", "a\0b", b"/bin/no such", 5, None)
def programs_that_do_not_start(loop, program):
    return run(loop, program, "argument")


@case
def order_of_calls(loop):
    steps = "printf 1", "exec >&-", "printf 2 >&2", "exec 2>&-", "exec <&-", "exit 7"
    return tell(loop, "; sleep 0.05; ".join(steps))


@case
def order_of_calls_with_all_at_once(loop):
    """Exit and ends of pipes come together: only what must be in order is compared."""
    calls, code, _ = tell(loop, "printf 1; printf 2 >&2; exit 7")
    assert (calls[0], calls[-1]) == ("made", ("lost", None))
    return sorted(map(str, calls)), code


@case
def killed_while_it_runs(loop):
    async def act(transport, protocol):
        transport.kill()

    return tell(loop, "exec sleep 100", act, stdin=None, stdout=None, stderr=None)


@case
def closed_while_it_runs(loop):
    async def act(transport, protocol):
        transport.close()
        transport.close()

    return tell(loop, "exec sleep 100", act, stdin=None, stdout=None, stderr=None)


FAILURES = ZeroDivisionError, asyncio.CancelledError
TOLD = "made", "data", "pipe", "exited", "lost"


@cases(*[(call, error) for call in TOLD for error in FAILURES])
def protocol_fails(loop, what):
    call, error = what

    class Fails(Told):
        def fail(self, name):
            if name == call:
                raise error("in the protocol")

        def connection_made(self, transport):
            super().connection_made(transport)
            self.fail("made")

        def pipe_data_received(self, fd, data):
            super().pipe_data_received(fd, data)
            self.fail("data")

        def pipe_connection_lost(self, fd, exc):
            super().pipe_connection_lost(fd, exc)
            self.fail("pipe")

        def process_exited(self):
            super().process_exited()
            self.fail("exited")

        def connection_lost(self, exc):
            super().connection_lost(exc)
            self.fail("lost")

    async def main():
        # One pipe, which ends long before the process: the order is always the same.
        command = "printf 1; exec >&-; sleep 0.03; exit 7"
        transport, protocol = await loop.subprocess_shell(Fails, command, stdin=None, stderr=None)
        await asyncio.wait([protocol.lost], timeout=TIMEOUT)
        await turns()
        code = transport.get_returncode()
        transport.close()
        return protocol.calls, code

    return loop.run_until_complete(main())


@cases("terminate", "kill", "send_signal")
def signals_after_the_exit(loop, method):
    async def main():
        # Whether it is known to be gone depends on whether wait() had to wait.
        reading, writing = os.pipe()
        process = await asyncio.create_subprocess_exec("cat", stdin=reading)
        os.close(reading)
        waiting = asyncio.ensure_future(process.wait())
        await turns()
        os.close(writing)
        await waiting
        try:
            getattr(process, method)(*([signal.SIGUSR1] if method == "send_signal" else []))
        except ProcessLookupError:
            return "ProcessLookupError"
        return "nothing"

    return loop.run_until_complete(main())


@case
def pipes_of_the_transport(loop):
    async def act(transport, protocol):
        pipes = [transport.get_pipe_transport(fd) for fd in range(4)]
        protocol.calls += [isinstance(p, asyncio.WriteTransport) for p in pipes]
        protocol.calls += [isinstance(p, asyncio.ReadTransport) for p in pipes]
        protocol.calls.append(transport.get_extra_info("subprocess").pid == transport.get_pid())
        pipes[0].write(b"x")
        pipes[0].close()

    return tell(loop, "cat; exec >&-; sleep 0.05", act, stderr=None)


@case
def reading_paused_by_the_stream(loop):
    async def main():
        process = await asyncio.create_subprocess_exec(
            "head", "-c", "1000000", "/dev/zero", stdout=PIPE, limit=1000
        )
        await turns(10)
        data = await process.stdout.read()
        return len(data), await process.wait()

    return loop.run_until_complete(main())


@case
def standard_files_that_are_pipes(loop):
    """Not sockets: /dev/stdin can be opened again."""
    script = "test -p /dev/stdin && test -p /dev/stdout && test -p /dev/stderr; echo $?"
    script += "; cat /dev/stdin; echo x >/dev/stdout"
    return run(loop, script, give=b"in", stdin=PIPE, stdout=PIPE, stderr=PIPE)


@case
def descriptors_of_a_child(loop):
    async def main():
        first = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        with contextlib.ExitStack() as stack:
            for fd in os.pipe():
                stack.callback(os.close, fd)
            second = await asyncio.create_subprocess_exec("ls", "/proc/self/fd", stdout=PIPE)
            listed, _ = await second.communicate()
        await first.communicate(b"")
        return listed

    return loop.run_until_complete(main())


@case
def grandchild_holds_the_output(loop):
    """When wait() returns is asyncio's own way on each version."""

    async def main():
        process = await asyncio.create_subprocess_shell(
            "read x; exec 3<&0; cat <&3 & exit 5", stdin=PIPE, stdout=PIPE
        )
        waiting = loop.create_task(process.wait())
        await turns()
        process.stdin.write(b"go\n")
        await until(lambda: process.returncode is not None)
        await turns(10)
        early = waiting.done()
        process.stdin.write(b"in")
        process.stdin.close()
        return await waiting, early, await process.stdout.read()

    return loop.run_until_complete(main())


@case
def a_closed_loop(loop):
    loop.close()
    coro = loop.subprocess_exec(
        asyncio.SubprocessProtocol, TRUE, stdin=None, stdout=None, stderr=None
    )
    try:
        coro.send(None)
    finally:
        coro.close()
        del coro
        gc.collect()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, debug):
    if case.__name__.startswith("popen_arguments") and os.getuid() != 0 and "user" in case.__name__:
        pytest.skip("only root may change the user")
    stock, ours = on_both(case, debug=debug)
    if "a_closed_loop" in case.__name__:
        stock.warnings, ours.warnings = [], []  # of the child that was started in vain
    assert ours.lines() == stock.lines()


# --- exits


@contextlib.contextmanager
def warnings_logged():
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("asyncio").addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger("asyncio").removeHandler(handler)


def is_zombie(pid):
    """Has it exited without being waited for?"""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return False


def exists(pid):
    return os.path.exists(f"/proc/{pid}")


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.005)


def waiting_threads():
    """Those that wait for a child, asyncio's and ours alike; each holds the child's pipes."""
    return {t for t in threading.enumerate() if "waitpid" in t.name}


@pytest.fixture(params=["pidfd", "thread"])
def watching(request, monkeypatch):
    """Both ways to watch a child."""
    if request.param == "thread":

        def refuse(pid, flags=0):
            raise PermissionError(1, "not here")

        monkeypatch.setattr(os, "pidfd_open", refuse)
    return request.param


def test_no_signal_handler_and_no_child_watcher(loop, monkeypatch):
    before = signal.getsignal(signal.SIGCHLD)
    if sys.version_info < (3, 14):
        monkeypatch.setattr(asyncio.get_event_loop_policy(), "_watcher", None)
    threads = waiting_threads()

    async def main():
        process = await asyncio.create_subprocess_exec("sleep", "0.05")
        assert signal.getsignal(signal.SIGCHLD) == before == signal.SIG_DFL
        assert waiting_threads() <= threads
        return await process.wait()

    assert loop.run_until_complete(main()) == 0
    if sys.version_info < (3, 14):
        assert asyncio.get_event_loop_policy()._watcher is None


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="3.14 has no child watchers")
def test_asyncios_own_choice_of_threads_is_not_the_programs(loop, monkeypatch):
    """It stays with asyncio's policy when descriptors were short only once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        watcher = asyncio.ThreadedChildWatcher()
    monkeypatch.setattr(asyncio.get_event_loop_policy(), "_watcher", watcher)
    threads = waiting_threads()

    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
        assert waiting_threads() <= threads
        await process.communicate(b"")

    loop.run_until_complete(main())


def test_both_ways_to_watch(loop, watching):
    threads = waiting_threads()

    async def main():
        process = await asyncio.create_subprocess_shell("read x; exit 6", stdin=PIPE)
        assert len(waiting_threads() - threads) == (watching == "thread")
        await process.communicate(b"x\n")
        return await process.wait()

    assert loop.run_until_complete(main()) == 6


def test_many_children_at_once(loop, watching):
    async def main():
        waits = []
        for code in range(20):
            process = await asyncio.create_subprocess_shell(f"exit {code}")
            waits.append(process.wait())
        return await asyncio.gather(*waits)

    assert loop.run_until_complete(main()) == list(range(20))


def test_a_child_that_somebody_else_has_reaped(loop):
    async def main():
        # It exits when the loop is held up here, not before.
        reading, writing = os.pipe()
        process = await asyncio.create_subprocess_exec("cat", stdin=reading)
        os.close(reading)
        os.close(writing)
        os.waitpid(process.pid, 0)
        with warnings_logged() as messages:
            code = await process.wait()
        return code, messages, process.pid

    code, messages, pid = loop.run_until_complete(main())
    assert code == 255
    assert len(messages) == 1
    assert f"pid {pid}" in messages[0]
    assert "will report returncode 255" in messages[0]


@pytest.mark.parametrize("how", ["poll", "wait in a thread"])
def test_a_child_that_its_popen_has_reaped(loop, how):
    """asyncio takes 255 for it."""

    async def main():
        transport, protocol = await loop.subprocess_shell(
            Told, "exit 9", stdin=None, stdout=None, stderr=None
        )
        popen = transport.get_extra_info("subprocess")
        if how == "poll":
            while popen.poll() is None:
                time.sleep(0.001)
        else:
            await loop.run_in_executor(None, popen.wait)
        with warnings_logged() as messages:
            await asyncio.wait_for(protocol.lost, TIMEOUT)
        transport.close()
        return transport.get_returncode(), messages

    assert loop.run_until_complete(main()) == (9, [])


def test_closing_a_child_that_has_just_exited(loop):
    """Its own return code, not 255."""

    async def main():
        # It exits when the loop is held up here, not before.
        reading, writing = os.pipe()
        transport, protocol = await loop.subprocess_shell(
            Told, "read x; exit 9", stdin=reading, stdout=None, stderr=None
        )
        os.close(reading)
        os.close(writing)
        wait_until(lambda: is_zombie(transport.get_pid()))
        with warnings_logged() as messages:
            transport.close()
            await asyncio.wait_for(protocol.lost, TIMEOUT)
        return transport.get_returncode(), messages

    assert loop.run_until_complete(main()) == (9, [])


def test_children_nobody_waits_for_are_reaped(loop):
    async def main():
        process = await asyncio.create_subprocess_exec(TRUE)
        pid = process.pid
        del process
        gc.collect()
        await until(lambda: not exists(pid))

    loop.run_until_complete(main())


def test_with_sigchld_ignored(loop):
    """The kernel reaps then; nothing hangs."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with warnings_logged():
            code = loop.run_until_complete(asyncio.wait_for(started_and_waited(), TIMEOUT))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert code == 255


async def started_and_waited(*command):
    process = await asyncio.create_subprocess_exec(*(command or (TRUE,)))
    return await process.wait()


@pytest.mark.parametrize("ends", ["before", "after", "killed"])
def test_loop_closes_while_a_child_runs(watching, ends):
    """No descriptor and no zombie stays behind."""
    # With its first loop libuv opens a pipe that serves all others, too.
    ouroloop.new_event_loop().close()
    gc.collect()
    threads, before = waiting_threads(), set(os.listdir("/proc/self/fd"))
    loop = ouroloop.new_event_loop()

    async def main():
        command = TRUE if ends == "before" else "cat"
        process = await asyncio.create_subprocess_exec(command, stdin=PIPE)
        if ends == "before":
            wait_until(lambda: is_zombie(process.pid) or not exists(process.pid))
        return process

    process = loop.run_until_complete(main())
    pid = process.pid
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        if ends == "killed":
            process.kill()
        loop.close()
        if ends == "after":
            # As on asyncio the pipe does not end with the loop: a thread that
            # waits for the child keeps its transport.
            process.stdin.get_extra_info("pipe").close()
        del process
        gc.collect()
        wait_until(lambda: not exists(pid))
        wait_until(lambda: waiting_threads() <= threads)
        gc.collect()
    wait_until(lambda: set(os.listdir("/proc/self/fd")) <= before)


# --- threads and forks


def test_threads_spawn_at_once(watching):
    def work(results):
        loop = ouroloop.new_event_loop()

        async def main():
            for i in range(5):
                process = await asyncio.create_subprocess_shell(
                    f"cat; exit {i}", stdin=PIPE, stdout=PIPE
                )
                output, _ = await asyncio.wait_for(process.communicate(b"x" * 1000), TIMEOUT)
                results.append((len(output), process.returncode))

        loop.run_until_complete(main())
        loop.close()

    results = [[] for _ in range(4)]
    threads = [threading.Thread(target=work, args=(result,)) for result in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [[(1000, i) for i in range(5)]] * 4


def test_a_fork_meanwhile(loop):
    """A forked process inherits the loop and its child, and disturbs neither when it ends."""

    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forks with threads, 3.12+
            pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                asyncio._set_running_loop(None)
                loop._watcher.close()
                process._transport.close()
            os._exit(0)
        await loop.run_in_executor(None, os.waitpid, pid, 0)
        return await asyncio.wait_for(process.communicate(b"still there"), TIMEOUT)

    assert loop.run_until_complete(main()) == (b"still there", None)


# --- failures leave nothing behind


def descriptors():
    gc.collect()
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("command", "options", "error"),
    [
        ("/no/such/program", {}, FileNotFoundError),
        ("/etc/passwd", {}, PermissionError),
        (TRUE, {"cwd": "/no/such/directory"}, FileNotFoundError),
        pytest.param(
            TRUE,
            {"user": "no such user"},
            LookupError,
            marks=pytest.mark.skipif(
                sys.version_info < (3, 11), reason="3.10's Popen leaks its pipes then"
            ),
        ),
    ],
)
def test_what_does_not_start_costs_no_descriptor(loop, command, options, error):
    async def main():
        for _ in range(3):
            with pytest.raises(error):
                await asyncio.create_subprocess_exec(
                    command, stdin=PIPE, stdout=PIPE, stderr=PIPE, **options
                )

    loop.run_until_complete(main())
    before = descriptors()
    loop.run_until_complete(main())
    assert descriptors() == before


@contextlib.contextmanager
def descriptor_limit(count):
    """Let so many more descriptors be opened."""
    free = []
    while len(free) <= count:
        free.append(os.dup(0))
    for fd in free:
        os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on the number: what is closed below it may be used again.
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("count", range(12))
def test_descriptors_run_out_at_each_step(loop, count):
    """It fails as Popen fails, or works, with no descriptor at all left for the exit as well."""

    async def main():
        await asyncio.sleep(0.001)
        with descriptor_limit(count):
            try:
                process = await asyncio.create_subprocess_shell(
                    "cat; exit 3", stdin=PIPE, stdout=PIPE, stderr=PIPE
                )
            except OSError as error:
                return "refused" if error.errno == 24 else error
            output = await asyncio.wait_for(process.communicate(b"in"), TIMEOUT)
            assert (output, process.returncode) == ((b"in", b""), 3)
            return "works"

    warm = loop.run_until_complete(main())
    assert warm == {0: "refused", 11: "works"}.get(count, warm)
    if sys.version_info >= (3, 12):  # Popen itself leaks its first pipes before.
        before = descriptors()
        assert loop.run_until_complete(main()) == warm
        assert descriptors() == before


def test_no_thread_can_be_started(loop, monkeypatch):
    """Nobody could ever tell of the exit: the child is ended and the caller is told."""
    pids = []

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    def no_pidfd(pid, flags=0):
        pids.append(pid)
        raise OSError(24, "Too many open files")

    async def main():
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await asyncio.create_subprocess_exec("sleep", "100")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", no_pidfd)
        patch.setattr(threading.Thread, "start", refuse)
        loop.run_until_complete(main())
    assert not exists(pids[0])


@pytest.mark.parametrize("turns_before", range(6))
def test_cancelled_while_it_is_created(loop, turns_before):
    """At whatever point: the child is killed and reaped, its pipes are closed."""

    async def main():
        task = loop.create_task(
            asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        )
        for _ in range(turns_before):
            await asyncio.sleep(0)
        task.cancel()
        try:
            process = await asyncio.wait_for(task, TIMEOUT)
        except asyncio.CancelledError:
            return
        await process.communicate()

    others = subprocess_children()

    async def settle():
        await until(lambda: subprocess_children() <= others)
        await turns()

    loop.run_until_complete(main())
    loop.run_until_complete(settle())
    before = descriptors()
    loop.run_until_complete(main())
    loop.run_until_complete(settle())
    assert descriptors() == before


def subprocess_children():
    """The children of this process."""
    with open(f"/proc/self/task/{threading.get_native_id()}/children") as file:
        return set(file.read().split())


# --- child watchers that a program has chosen, until 3.13

chosen = pytest.mark.skipif(sys.version_info >= (3, 14), reason="3.14 has no child watchers")


@contextlib.contextmanager
def child_watcher(watcher):
    policy = asyncio.get_event_loop_policy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        policy.set_child_watcher(watcher)
        try:
            yield
        finally:
            policy.set_child_watcher(None)


@chosen
@pytest.mark.parametrize("name", ["SafeChildWatcher", "FastChildWatcher", "PidfdChildWatcher"])
def test_a_chosen_watcher_is_used(loop, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        watcher = getattr(unix_events, name)()
    watcher.attach_loop(loop)
    asked = []
    add = watcher.add_child_handler
    watcher.add_child_handler = lambda *args: asked.append(args) or add(*args)
    with child_watcher(watcher):
        code = loop.run_until_complete(
            asyncio.wait_for(started_and_waited("sh", "-c", "exit 4"), 9)
        )
        assert code == 4
        default = sys.version_info >= (3, 12) and name == "PidfdChildWatcher"
        assert len(asked) == (0 if default else 1)
        watcher.attach_loop(None)
        watcher.close()


@chosen
def test_a_watcher_that_is_not_active(loop):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        watcher = unix_events.SafeChildWatcher()
    with child_watcher(watcher), pytest.raises(RuntimeError, match="not activated"):
        loop.run_until_complete(started_and_waited())


@chosen
def test_asking_for_the_watcher_is_no_choice(loop):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        watcher = asyncio.get_child_watcher()
    try:
        watcher.add_child_handler = None
        assert loop.run_until_complete(started_and_waited()) == 0
    finally:
        asyncio.get_event_loop_policy()._watcher = None
