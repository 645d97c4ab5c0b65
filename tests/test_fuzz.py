"""`./dev fuzz` itself: it finds what is planted, makes it small, and says how to run it again."""

import asyncio
import collections
import os
import re
import signal
import subprocess
import sys

import fuzz
import ouroloop
import programs
import pytest

STOCK = asyncio.SelectorEventLoop

pytestmark = [
    pytest.mark.skipif(
        "-fsanitize" in ouroloop.build_info()["build_flags"],
        reason="about the tool, no code of ours; its children copy ten times the memory",
    ),
    # The children would look at all the garbage of the tests before these.
    pytest.mark.usefixtures("frozen_garbage"),
    pytest.mark.timeout(300),
    # Python warns of fork() when a test before has left a thread to end by itself.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


class FirstComesLast(asyncio.SelectorEventLoop):
    """call_soon_threadsafe() puts its callback before all that wait."""

    def call_soon_threadsafe(self, callback, *args, context=None):
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        if isinstance(self._ready, collections.deque):
            self._ready.rotate(1)
        return handle


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Crashes(asyncio.SelectorEventLoop):
    def call_at(self, when, callback, *args, context=None):
        if callback.__name__ == "called":
            die()
        return super().call_at(when, callback, *args, context=context)


class Hangs(asyncio.SelectorEventLoop):
    def call_at(self, when, callback, *args, context=None):
        while callback.__name__ == "called":
            pass
        return super().call_at(when, callback, *args, context=context)


def first_difference(loop):
    return next(fuzz.differing(range(3000), 1, (STOCK, loop)))


def reduced(loop):
    seed = first_difference(loop)
    difference = fuzz.Difference(programs.generate(seed), STOCK, loop)
    assert difference.is_one()
    assert difference.is_stable()
    small = difference.reduced()
    assert small.is_one()
    return difference, small


def count(program):
    return sum(1 for line in programs.text(program).splitlines() if not line.endswith(":")) - 1


def test_a_wrong_order_is_found_and_made_small():
    difference, small = reduced(FirstComesLast)
    assert count(small.program) <= 3 < count(difference.program)
    assert programs.features(small.program) & {
        "call_soon_threadsafe",
        "concurrent",
        "threadsafe_task",
        "leave_generator",
    }
    report = small.report()
    assert "async def t0():" in report
    assert re.search(r"^ *-\(", report, re.MULTILINE)
    assert re.search(r"^ *\+\(", report, re.MULTILINE)


def test_a_crash_is_found_and_made_small():
    _, small = reduced(Crashes)
    assert small.found == ["died of SIGKILL"]
    assert count(small.program) == 1
    assert "call_" in small.report() or "timers" in small.report()


def test_a_hang_is_found(monkeypatch):
    monkeypatch.setattr(fuzz, "LIMIT_SECONDS", 2)
    monkeypatch.setattr(fuzz, "REDUCE_SECONDS", 1)
    _, small = reduced(Hangs)
    assert small.found == ["died of SIGALRM"]


def test_what_a_small_program_does_not_use_is_left_out():
    program = {
        "drive": "turns",
        "connected": ["connection", "descriptors"],
        "eager": False,
        "debug": True,
        "tasks": [[("sleep0", 0), ("write", 3)], [("write_eof", 1)]],
    }
    small = programs.reduce(program, lambda candidate: "write" in programs.features(candidate))
    assert small == {
        **program,
        "connected": ["connection"],
        "debug": False,
        "tasks": [[("write", 0)]],
    }


def test_what_depends_on_more_than_the_loop_is_told_apart(tmp_path):
    turns = tmp_path / "turns"

    def new_loop():
        with open(turns, "ab") as file:
            file.write(b"x")
            return STOCK() if file.tell() % 2 else FirstComesLast()

    program = {
        "drive": "ready",
        "connected": [],
        "eager": False,
        "debug": False,
        "tasks": [[("call_soon", 0), ("call_soon_threadsafe", 0), ("call_soon", 0)]],
    }
    difference = fuzz.Difference(program, new_loop, STOCK)
    assert not difference.is_stable()


@pytest.mark.parametrize("crashing", [3, 4, 9])
def test_the_others_run_after_a_crash(crashing, monkeypatch):
    def same(program, *loops):
        if program == crashing:
            die()
        return program not in (2, 5, 8)

    monkeypatch.setattr(fuzz, "same", same)
    monkeypatch.setattr(programs, "generate", lambda seed: seed)
    found = sorted(fuzz.differing(range(10), 2, ()))
    assert found == sorted([2, 5, 8, crashing])


def command(*arguments):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fuzz.py")
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, timeout=200
    )


def test_the_last_line_counts():
    done = command("--programs", "40", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(
        rf"{fuzz.version()}: 40 programs on asyncio and ouroloop, 0 differences in \d+ s",
        done.stdout.splitlines()[-1],
    )


def test_one_seed_is_shown():
    done = command("--seed", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert programs.text(programs.generate(7)) in done.stdout
    assert "the same on asyncio and ouroloop" in done.stdout


def test_a_difference_fails_the_command(capsys):
    seed = first_difference(FirstComesLast)
    status = fuzz.main(["--programs", "1", "--seed", str(seed)], (STOCK, FirstComesLast))
    output = capsys.readouterr().out
    assert status == 1
    assert f"seed {seed}: not the same, reduced to" in output
    assert f"./dev fuzz --seed {seed}\n" in output
    assert "1 programs on asyncio and ouroloop, 1 differences" in output
