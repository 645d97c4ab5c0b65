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
    assert len(names) > 0.7 * len(programs.ALL)


def test_a_seed_makes_one_program():
    made = [programs.generate(seed) for seed in range(50)]
    assert made == [programs.generate(seed) for seed in range(50)]
    assert len({programs.text(program) for program in made}) == 50


def test_each_statement_is_there():
    done = {name for name, _ in inspect.getmembers(machine.Machine) if name.startswith("do_")}
    missing = {f"do_{name}" for name in programs.ALL} - done
    assert not missing
