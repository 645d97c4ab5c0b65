"""Fixtures for all tests: a loop that must be left clean, and scripts in their own processes.

OUROLOOP_TEST_GC=1 makes the garbage collector run as often as it can, for the whole session.
"""

import asyncio
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
import types
import warnings

import pytest

# Their assertions are to explain themselves as those of test files do.
pytest.register_assert_rewrite("features", "network", "setups")

TESTS = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(TESTS)
SETTLE = 2


def pytest_configure(config):
    if os.environ.get("OUROLOOP_TEST_GC") == "1":
        gc.set_threshold(1)


def pytest_report_header(config):
    try:
        ouroloop = importlib.import_module("ouroloop")
    except ImportError as error:
        return f"ouroloop: cannot be imported: {error}"
    stress = ", gc.set_threshold(1)" if gc.get_threshold()[0] == 1 else ""
    return f"ouroloop: {ouroloop.build_info()}{stress}"


class Reports(list):
    """The contexts given to the loop's exception handler; a test takes those it provoked."""

    def take(self):
        taken = list(self)
        self.clear()
        return taken


@pytest.fixture(scope="module")
def frozen_garbage():
    """Keep what exists already out of the collections that a module's tests ask for: 5x faster."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def reports():
    """What the `loop` fixture's loop reported to its exception handler so far, oldest first."""
    return Reports()


@pytest.fixture
def loop(reports):
    """A new ouroloop loop, not set as the thread's current one.

    After the test it must be possible to close it with nothing left behind: no live task, no open
    uv handle, no warning, and no report to the exception handler that the test did not take.
    """
    import ouroloop

    loop = ouroloop.new_event_loop()
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    yield loop
    # During the test itself pytest's configuration turns warnings into errors.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problems = leftovers(loop)
        gc.collect()
    problems += [f"{w.category.__name__}: {w.message}" for w in caught]
    problems += [f"report to the exception handler: {context}" for context in reports.take()]
    assert not problems, "\n".join(problems)


def leftovers(loop):
    """Close the loop; what a test should have ended before, as a list of texts."""
    if loop.is_closed():
        return []
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    # What was closed ends soon, also where the other side of a connection has to notice it.
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline and (loop._open_handles() or asyncio.all_tasks(loop)):
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
    problems = [f"live task: {task!r}" for task in asyncio.all_tasks(loop)]
    problems += [f"open uv handle: {name}" for name in loop._open_handles()]
    loop.close()
    return problems


@pytest.fixture
def pair():
    """Two connected non-blocking sockets."""
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


@pytest.fixture
def run_script():
    """Run a script of tests/isolated in its own interpreter: `run_script("fork.py", "idle")`.

    Returns an object with `stdout`, `stderr` and `returncode`; a script that is not done within
    `timeout` seconds is killed and fails the test. `options` come before the script.
    """

    def run(name, *args, timeout=30, options=(), check=True, env=None):
        path = os.path.join(TESTS, "isolated", name)
        return run_python([*options, path, *args], timeout=timeout, check=check, env=env)

    return run


def run_python(args, *, timeout=30, check=True, env=None, cwd=None):
    """Run this Python with `args`; with `check`, a status other than 0 fails the test."""
    command = [sys.executable, *args]
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1", **(env or {})}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=cwd,
        text=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        # SIGABRT makes faulthandler print where it hangs.
        process.send_signal(signal.SIGABRT)
        try:
            stdout, stderr = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
        pytest.fail(f"{args} did not end within {timeout} s\n{stdout}\n{stderr}")
    done = types.SimpleNamespace(stdout=stdout, stderr=stderr, returncode=process.returncode)
    if check and done.returncode != 0:
        pytest.fail(f"{args} ended with status {done.returncode}\n{stdout}\n{stderr}")
    return done


@pytest.fixture(name="run_python")
def run_python_fixture():
    return run_python
