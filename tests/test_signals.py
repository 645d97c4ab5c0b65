"""csrc/signals.c: signals wake the loop and reach their handlers."""

import asyncio
import os
import signal
import threading
import time

import pytest


def kill_self(number=signal.SIGUSR1):
    os.kill(os.getpid(), number)


def test_handler_runs_and_is_removed(loop):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    loop.call_soon(kill_self)
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert seen == [1]
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_signal_between_two_runs_is_not_lost(loop):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    kill_self()
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert seen == [1]
    kill_self()
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert seen == [1, 1]
    loop.remove_signal_handler(signal.SIGUSR1)


def test_sigchld_may_be_handled(loop):
    seen = []
    loop.add_signal_handler(signal.SIGCHLD, seen.append, 1)
    loop.call_soon(kill_self, signal.SIGCHLD)
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGCHLD)
    assert seen == [1]


def test_failing_handler_is_reported(loop, reports):
    loop.add_signal_handler(signal.SIGUSR1, lambda: 1 / 0)
    loop.call_soon(kill_self)
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGUSR1)
    (report,) = reports.take()
    assert isinstance(report["exception"], ZeroDivisionError)


@pytest.fixture
def sigusr1():
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("sigusr1")
def test_plain_handlers_run_in_an_idle_loop(loop):
    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(time.monotonic()))
    timer = threading.Timer(0.05, kill_self)
    loop.call_soon(timer.start)
    loop.call_later(20, loop.stop)
    loop.call_later(0.01, poll_until, loop, seen)
    loop.run_forever()
    timer.join()
    assert seen


def poll_until(loop, seen):
    if seen:
        loop.stop()
    else:
        loop.call_later(0.01, poll_until, loop, seen)


@pytest.mark.usefixtures("sigusr1")
def test_exception_of_a_plain_handler_leaves_the_loop(loop):
    class Interrupted(Exception):
        pass

    def handler(*_):
        raise Interrupted

    signal.signal(signal.SIGUSR1, handler)
    timer = threading.Timer(0.05, kill_self)
    loop.call_soon(timer.start)
    start = time.monotonic()
    with pytest.raises(Interrupted):
        loop.run_until_complete(asyncio.sleep(20))
    timer.join()
    assert time.monotonic() - start < 10
    cancel_all(loop)


def test_ctrl_c_in_an_idle_loop(loop):
    timer = threading.Timer(0.05, kill_self, [signal.SIGINT])
    loop.call_soon(timer.start)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(20))
    timer.join()
    assert time.monotonic() - start < 10
    cancel_all(loop)


def test_ctrl_c_still_works_after_the_last_handler_is_removed(loop):
    async def main():
        loop.add_signal_handler(signal.SIGUSR1, print)
        loop.remove_signal_handler(signal.SIGUSR1)
        await asyncio.sleep(20)

    timer = threading.Timer(0.05, kill_self, [signal.SIGINT])
    loop.call_soon(timer.start)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(main())
    timer.join()
    assert time.monotonic() - start < 10
    cancel_all(loop)


def cancel_all(loop):
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()


@pytest.mark.usefixtures("sigusr1")
def test_wakeup_fd_is_shared_and_given_back(loop):
    signal.signal(signal.SIGUSR1, lambda *_: None)
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write)
    try:
        loop.call_soon(kill_self)
        loop.call_later(0.05, loop.stop)
        loop.run_forever()
        assert os.read(read, 10) == bytes([signal.SIGUSR1])
    finally:
        current = signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)
    assert current == write


def test_handlers_need_the_main_thread(loop):
    errors = []

    def add():
        try:
            loop.add_signal_handler(signal.SIGUSR1, print)
        except RuntimeError as exc:
            errors.append(str(exc))

    thread = threading.Thread(target=add)
    thread.start()
    thread.join()
    assert errors == ["set_wakeup_fd only works in main thread of the main interpreter"]


def test_bad_signals(loop):
    with pytest.raises(TypeError, match="sig must be an int"):
        loop.add_signal_handler("SIGINT", print)
    with pytest.raises(ValueError, match="invalid signal number"):
        loop.add_signal_handler(1000, print)
    with pytest.raises(RuntimeError, match="cannot be caught"):
        loop.add_signal_handler(signal.SIGKILL, print)
