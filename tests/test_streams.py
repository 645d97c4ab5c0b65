"""The classes of asyncio's streams: input in C, and every way in which that must not be seen.

The fuzz runs random programs for a stream (stream_programs.py) on stock asyncio and on ouroloop and
compares everything that they see. OUROLOOP_FUZZ=n runs n programs more, OUROLOOP_SEED=k only
program k.
"""

import asyncio
import os
import pprint
import random
import warnings

import ouroloop
import pytest
from stream_programs import Run, generate

PROGRAMS = 160
BLOCK = 20

EXTRA = int(os.environ.get("OUROLOOP_FUZZ", "0"))
ONLY = os.environ.get("OUROLOOP_SEED")
BLOCKS = [range(start, start + BLOCK) for start in range(0, PROGRAMS, BLOCK)]
if EXTRA:
    first = random.SystemRandom().randrange(10**6, 10**9)
    BLOCKS += [range(n, min(n + 500, first + EXTRA)) for n in range(first, first + EXTRA, 500)]
if ONLY:
    BLOCKS = [range(int(ONLY), int(ONLY) + 1)]


def events(program, new_event_loop):
    loop = new_event_loop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return loop.run_until_complete(asyncio.wait_for(Run(program).run(), 20))
        except BaseException as error:
            return [repr(error)]
        finally:
            loop.close()


def difference(program):
    expected = events(program, asyncio.new_event_loop)
    found = events(program, ouroloop.new_event_loop)
    if expected == found:
        return None
    for number, (one, other) in enumerate(zip(expected, found, strict=False)):
        if one != other:
            one, other = pprint.pformat(one), pprint.pformat(other)
            return f"event {number}\nasyncio:\n{one}\nouroloop:\n{other}"
    return f"asyncio has {len(expected)} events, ouroloop {len(found)}"


def reduced(program):
    """As few steps as show a difference."""
    steps = list(program["steps"])
    position = 0
    while position < len(steps):
        fewer = dict(program, steps=steps[:position] + steps[position + 1 :])
        if difference(fewer):
            steps = fewer["steps"]
        else:
            position += 1
    return dict(program, steps=steps)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"{seeds.start}")
def test_random_programs(seeds):
    for seed in seeds:
        program = generate(seed)
        # Once more, for what a busy machine does to the time between two steps.
        if difference(program) and difference(program):
            small = reduced(program)
            pytest.fail(
                f"seed {seed} (OUROLOOP_SEED={seed}), reduced to\n{pprint.pformat(small)}\n"
                f"{difference(small) or difference(program)}",
                pytrace=False,
            )
