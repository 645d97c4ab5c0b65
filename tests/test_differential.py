"""Random programs run on stock asyncio and on ouroloop: the same events in the same order.

These are the first of those that `./dev fuzz` runs.
"""

import asyncio
import inspect

import fuzz
import machine
import ouroloop
import programs
import pytest

pytestmark = pytest.mark.usefixtures("frozen_garbage")

PROGRAMS = 600
BLOCK = 50

LOOPS = asyncio.SelectorEventLoop, ouroloop.new_event_loop


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, PROGRAMS, BLOCK))
def test_same_trace(first, capsys):
    for seed in range(first, first + BLOCK):
        if not fuzz.same(programs.generate(seed), *LOOPS):
            with capsys.disabled():
                fuzz.explain(seed, LOOPS)
            pytest.fail(f"the program of seed {seed} is not the same on asyncio and ouroloop")


# What once differed, made small: connections, and what their tasks do.
FOUND = {
    "end of input in its turn": (["protocols"], [[("close_transport", 0)]]),
    "end of a stream in its turn": (["connection"], [[("close_writer", 0), ("readuntil", 1)]]),
    "input behind callbacks": (["protocols"], [[("send", 1), ("call_soon", 0)], [("state", 0)]]),
    "input before timers": (["protocols"], [[("call_later", 1), ("send", 1), ("await_data", 0)]]),
    "one read in a turn": (["protocols"], [[("send_large", 0)]]),
    "paused when input was found": (
        ["protocols"],
        [[("send", 1)], [("sleep0", 0), ("flip_reading", 0)]],
    ),
    "sock_recv in its turn": (
        ["descriptors"],
        [[("await_child", 0, [("sock_recv", 0)], [("raw_send", 3)])]],
    ),
    "context of a broken connection": (
        ["protocols"],
        [[("set_variable", 1), ("send_large", 0), ("send_end", 1)]],
    ),
    "context of resumed reading": (
        ["protocols"],
        [[("set_variable", 1), ("flip_reading", 0)], [("abort_transport", 1)]],
    ),
    "context of resumed writing": (
        ["protocols"],
        [[("task_in_context", 0, [("send_large", 1)])]],
    ),
    "closed with unsent data": (["protocols"], [[("send_large", 1)], [("close_transport", 1)]]),
    "read() woken in vain": (
        ["connection"],
        [[("spawn", 0, [("readline", 1)])], [("read", 1)], [("writelines", 0)]],
    ),
}


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_found_by_fuzzing(name, debug):
    connected, tasks = FOUND[name]
    if debug and name == "paused when input was found":
        pytest.skip("in debug mode an event that was found is not taken back")
    program = {"drive": "turns", "connected": connected, "eager": False, "debug": debug}
    program["tasks"] = tasks
    assert fuzz.trace(program, LOOPS[0]) == fuzz.trace(program, LOOPS[1])


def test_the_programs_are_worth_running():
    """They do much, end by themselves, and asyncio itself does the same twice."""
    lengths, names = [], set()
    for seed in range(300):
        program = programs.generate(seed)
        trace = machine.run(program, LOOPS[0])
        assert trace == machine.run(program, LOOPS[0]), f"seed {seed} depends on more than the loop"
        lengths.append(len(trace))
        names |= programs.features(program)
    assert sum(lengths) / len(lengths) > 30
    assert len(names) > 0.8 * len(programs.ALL)


def test_a_seed_makes_one_program():
    made = [programs.generate(seed) for seed in range(50)]
    assert made == [programs.generate(seed) for seed in range(50)]
    assert len({programs.text(program) for program in made}) == 50


def test_each_statement_is_there():
    done = {name for name, _ in inspect.getmembers(machine.Machine) if name.startswith("do_")}
    missing = {f"do_{name}" for name in programs.ALL} - done
    assert not missing
