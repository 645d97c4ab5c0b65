"""The scripts of isolated/, one process each: signals, fork, exit, subinterpreters, threads."""

import ast
import os
import sys

import pytest

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "isolated")
# What the whole interpreter has to end with, where that is not 0.
STATUS = {"at_exit.exit_in_task": 5, "at_exit.exit_in_callback": 6}
# What it prints, where that is not "ok".
OUTPUT = {
    "at_exit.exit_in_task": "",
    "at_exit.exit_in_callback": "",
    "at_exit.in_atexit": "ok\nran in atexit\n",
}
# Functions that are no test of their own: what they start ends with the process.
HELPERS = {
    "ctrl_c": {"interrupt_later", "expect_interrupt", "loop_stays_usable"},
    "forks": {
        "in_child",
        "child_with_a_new_loop",
        "reader_fires",
        "square_on_a_loop",
        "send_square",
        "use_multiprocessing",
    },
    "at_exit": {"started_loop"},
    "never_retrieved": {"reports_of"},
    "leaks": {"resident", "check", "in_loop"},
    "subinterpreters": {"run_in_new_interpreter"},
    "many_threads": {"in_threads"},
}


def modes(script):
    """The functions of a script that it takes as its argument."""
    with open(os.path.join(HERE, f"{script}.py")) as file:
        tree = ast.parse(file.read())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [name for name in names if name not in HELPERS.get(script, ())]


def cases(*scripts):
    return [(script, mode) for script in scripts for mode in modes(script)]


SCRIPTS = (
    "ctrl_c",
    "signals_run",
    "forks",
    "at_exit",
    "never_retrieved",
    "many_threads",
    "policies",
    "leaks",
)


@pytest.mark.parametrize(("script", "mode"), cases(*SCRIPTS))
def test_script(script, mode, run_script):
    if (script, mode) == ("ctrl_c", "runner") and sys.version_info < (3, 11):
        pytest.skip("asyncio.run() turns Ctrl-C into a cancellation from 3.11 on")
    done = run_script(f"{script}.py", mode, check=False)
    if done.stdout.startswith("skip: "):
        pytest.skip(done.stdout[6:].strip())
    expected = STATUS.get(f"{script}.{mode}", 0)
    assert done.returncode == expected, done.stdout + done.stderr
    assert done.stdout == OUTPUT.get(f"{script}.{mode}", "ok\n"), done.stdout + done.stderr
    assert "Fatal Python error" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a GIL per interpreter came with 3.12")
@pytest.mark.parametrize("mode", modes("subinterpreters"))
def test_subinterpreters(mode, run_script):
    if mode == "beside_the_main_one" and sys.version_info < (3, 13):
        pytest.skip("on 3.12 asyncio itself crashes when two interpreters run it at the same time")
    done = run_script("subinterpreters.py", mode)
    assert done.stdout == "ok\n", done.stderr


@pytest.mark.skipif(sys.version_info < (3, 14), reason="python -m asyncio ps came with 3.14")
def test_asyncio_ps(run_script):
    done = run_script("asyncio_ps.py", timeout=120)
    if done.stdout == "not permitted\n":
        pytest.skip("this machine does not let a process read another one's memory (ptrace)")
    assert done.stdout == "ok\n", done.stderr


def test_import_gives_no_warning(run_python):
    done = run_python(["-W", "error", "-c", "import ouroloop; print('ok')"])
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_import_starts_nothing(run_python):
    """No thread, no open descriptor, no running loop, no changed signal handler."""
    code = """
import os, signal, sys, threading, asyncio
def state():
    handlers = [signal.getsignal(n) for n in range(1, 32)]
    return len(os.listdir('/proc/self/fd')), threading.active_count(), handlers
before = state()
import ouroloop
assert state() == before
assert asyncio._get_running_loop() is None
print('ok')
"""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("open descriptors are counted in /proc")
    assert run_python(["-c", code]).stdout == "ok\n"
