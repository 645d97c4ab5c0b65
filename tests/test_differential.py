"""Random programs run on stock asyncio and on ouroloop: the same events in the same order.

OUROLOOP_FUZZ=n runs n programs more, from a random seed on. `OUROLOOP_SEED=k` runs only program k.
"""

import asyncio
import os
import pprint
import random

import ouroloop
import programs
import pytest

pytestmark = pytest.mark.usefixtures("frozen_garbage")

PROGRAMS = 800
BLOCK = 50

EXTRA = int(os.environ.get("OUROLOOP_FUZZ", "0"))
ONLY = os.environ.get("OUROLOOP_SEED")

BLOCKS = [range(start, start + BLOCK) for start in range(0, PROGRAMS, BLOCK)]
if EXTRA:
    first = random.SystemRandom().randrange(10**6, 10**9)
    BLOCKS += [range(n, min(n + 500, first + EXTRA)) for n in range(first, first + EXTRA, 500)]
if ONLY:
    BLOCKS = [range(int(ONLY), int(ONLY) + 1)]


def stock(program):
    return programs.run(program, asyncio.SelectorEventLoop)


def ours(program):
    return programs.run(program, ouroloop.new_event_loop)


def differs(program):
    return stock(program) != ours(program)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_same_trace(seeds):
    for seed in seeds:
        program = programs.generate(seed)
        if differs(program):
            report(seed, program)


def report(seed, program):
    small = programs.reduce(program, differs)
    expected, got = stock(small), ours(small)
    common = 0
    while expected[common : common + 1] == got[common : common + 1] != []:
        common += 1
    pytest.fail(
        f"seed {seed} (OUROLOOP_SEED={seed}), reduced to\n{pprint.pformat(small)}\n"
        f"same up to  {pprint.pformat(expected[:common][-12:])}\n"
        f"then asyncio {pprint.pformat(expected[common:][:6])}\n"
        f"and ouroloop {pprint.pformat(got[common:][:6])}"
    )


def test_the_programs_are_worth_running():
    """They are long enough, and stock asyncio itself gives the same trace twice."""
    lengths = []
    for seed in range(100):
        program = programs.generate(seed)
        trace = stock(program)
        assert trace == stock(program), f"seed {seed} depends on more than the loop"
        lengths.append(len(trace))
    assert sum(lengths) / len(lengths) > 30
