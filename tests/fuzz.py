"""Differential fuzzing: random programs on asyncio and on ouroloop must do the same, in order.

    python tests/fuzz.py                    10,000 programs
    python tests/fuzz.py --programs 500 --seed 10000
    python tests/fuzz.py --seed 1234        one program: its text, and what happens on both
    python tests/fuzz.py --random           from a seed of this run on

A difference is printed with its seed, the program made small, and both traces. Programs run in
processes of their own, so one that crashes or hangs is found and made small like any other.
"""

import argparse
import asyncio
import contextlib
import difflib
import gc
import json
import logging
import mmap
import os
import pickle
import random
import select
import signal
import struct
import sys
import time

import machine
import ouroloop
import programs

MOST_FAILURES = 5
# For one program; a thousand times what it takes.
LIMIT_SECONDS = 20
REDUCE_SECONDS = 60


def events(program, new_event_loop):
    try:
        return machine.run(program, new_event_loop)
    except BaseException as error:
        return [f"raised {error!r}"]


def trace(program, new_event_loop):
    """What the program does on a new loop: a list of lines."""
    return [str(event) for event in events(program, new_event_loop)]


def same(program, expected_loop, found_loop):
    expected, found = events(program, expected_loop), events(program, found_loop)
    if is_same(expected, found):
        return True
    return bool(program["connected"]) and machine.same_in_other_order(program, found)


def is_same(expected, found):
    """A program that asyncio cannot run is one to be mended."""
    failed = isinstance(expected[0], str) and expected[0].startswith(("raised", "died", "ended"))
    return expected == found and not failed


def apart(function, *args):
    """The result of a function, called in a child; a line about the signal if it dies."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            # The default action ends a hang in C code, too.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LIMIT_SECONDS)
            with open(writing, "wb") as file:
                pickle.dump(function(*args), file)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    _, status = os.waitpid(child, 0)
    return pickle.loads(data) if data and status == 0 else [how_it_ended(status)]


def how_it_ended(status):
    if os.WIFSIGNALED(status):
        return f"died of {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"


class Difference:
    """A program that does not do the same on two loops, found by its seed or given."""

    def __init__(self, program, expected_loop, found_loop):
        self.program = program
        self.loops = expected_loop, found_loop
        self.expected, self.found = [apart(trace, program, loop) for loop in self.loops]

    def is_one(self):
        if is_same(self.expected, self.found):
            return False
        return apart(same, self.program, *self.loops) is not True

    def is_stable(self):
        """Does the first loop do the same each time?"""
        return all(self.expected == apart(trace, self.program, self.loops[0]) for _ in range(3))

    def reduced(self):
        """The same kind of difference in a program as small as can be."""
        ends, until = self.end(self.found), time.monotonic() + REDUCE_SECONDS

        def differs(program):
            if time.monotonic() > until:
                return False
            smaller = Difference(program, *self.loops)
            return smaller.is_one() and self.end(smaller.found) == ends

        return Difference(programs.reduce(self.program, differs), *self.loops)

    @staticmethod
    def end(lines):
        """How a program ended that did not come to its end."""
        return lines[0] if len(lines) == 1 and "raised" not in lines[0] else None

    def report(self):
        lines = difflib.unified_diff(
            self.expected, self.found, "asyncio", "ouroloop", n=1000, lineterm=""
        )
        text = [programs.text(self.program), "", *lines]
        return "\n".join(f"    {line}" for line in text)


class Worker:
    """A child that runs every n-th program and tells which of them differ."""

    def __init__(self, seeds, loops):
        self.seeds = seeds
        self.loops = loops
        self.position = mmap.mmap(-1, 8)
        self.start()

    def start(self):
        self.moved = time.monotonic(), -1
        self.reading, writing = os.pipe()
        # Or the child writes what is in the buffer once more.
        sys.stdout.flush()
        parent = os.getpid()
        self.process = os.fork()
        if self.process == 0:
            os.close(self.reading)
            self.work(writing, parent)
        os.close(writing)

    def work(self, writing, parent):
        status = 1
        try:
            for index, seed in enumerate(self.seeds):
                if os.getppid() != parent:
                    break  # It was killed.
                self.position[:] = struct.pack("q", index)
                if not same(programs.generate(seed), *self.loops):
                    os.write(writing, struct.pack("q", seed))
            status = 0
        finally:
            os._exit(status)

    def index(self):
        return struct.unpack("q", self.position[:])[0]

    def seed(self):
        """Of the program that runs."""
        return self.seeds[self.index()]

    def is_stuck(self):
        if self.moved[1] != self.index():
            self.moved = time.monotonic(), self.index()
        return time.monotonic() - self.moved[0] > LIMIT_SECONDS

    def kill(self):
        os.kill(self.process, signal.SIGKILL)

    def read(self):
        """The seeds that it has told of; None at its end."""
        data = os.read(self.reading, 4096)
        if not data:
            return None
        return [seed for (seed,) in struct.iter_unpack("q", data)]

    def end(self):
        """After its end: the seed of the program that killed it, and go on behind that."""
        os.close(self.reading)
        _, status = os.waitpid(self.process, 0)
        if status == 0:
            return []
        seed = self.seed()
        print(f"seed {seed}: its process {how_it_ended(status)}")
        self.seeds = self.seeds[self.index() + 1 :]
        self.start()
        return [seed]


def differing(seeds, jobs, loops):
    """Yield the seeds of programs that differ, crash or hang, as they are found."""
    workers = [Worker(seeds[number::jobs], loops) for number in range(jobs)]
    try:
        while workers:
            ready, _, _ = select.select([worker.reading for worker in workers], (), (), 1)
            for worker in list(workers):
                if worker.is_stuck():
                    worker.kill()
                if worker.reading not in ready:
                    continue
                found = worker.read()
                if found is None:
                    process = worker.process
                    found = worker.end()
                    if worker.process == process:
                        workers.remove(worker)
                yield from found
    finally:
        for worker in workers:
            worker.kill()
            os.waitpid(worker.process, 0)


def version():
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def explain(seed, loops):
    """Print all about a seed whose program differs."""
    tries = (Difference(programs.generate(seed), *loops) for _ in range(3))
    found = next(filter(Difference.is_one, tries), None)
    if found is None:
        print(f"seed {seed}: it did not differ when it was run again")
    elif not found.is_stable():
        print(f"seed {seed}: the program depends on more than the loop, also on asyncio")
        print(found.report())
    else:
        small = found.reduced()
        print(f"seed {seed}: not the same, reduced to")
        print(small.report())
    python = os.path.realpath(sys.executable)
    print(f"to run it again: PYTHON={python} ./dev fuzz --seed {seed}\n")


def show(seed, loops):
    found = Difference(programs.generate(seed), *loops)
    print(programs.text(found.program), "\n")
    if found.is_one():
        explain(seed, loops)
        return 1
    print("the same on asyncio and ouroloop:", *found.expected, sep="\n")
    return 0


def fuzz(seeds, jobs, loops):
    begin, failures = time.monotonic(), 0
    with contextlib.closing(differing(seeds, jobs, loops)) as found:
        for seed in found:
            failures += 1
            explain(seed, loops)
            if failures == MOST_FAILURES:
                print(f"more than {MOST_FAILURES - 1} differences: the rest is not run")
                break
    print(
        f"{version()}: {len(seeds)} programs on asyncio and ouroloop,"
        f" {failures} differences in {time.monotonic() - begin:.0f} s"
    )
    return failures


def main(arguments=None, loops=(asyncio.SelectorEventLoop, ouroloop.new_event_loop)):
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--programs", type=int, help="how many, 10000 unless told")
    parser.add_argument("--seed", type=int, help="the first; without --programs the only one")
    parser.add_argument("--random", action="store_true", help="begin with any seed")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", metavar="FILE", help="write the counts here, too")
    options = parser.parse_args(arguments)
    logging.getLogger("asyncio").propagate = False
    # What exists already is not to be looked at in each collection.
    gc.collect()
    gc.freeze()
    if options.seed is not None and options.programs is None:
        return show(options.seed, loops)
    first = random.SystemRandom().randrange(10**6, 10**9) if options.random else options.seed or 0
    count = 10_000 if options.programs is None else options.programs
    differences = fuzz(range(first, first + count), options.jobs, loops)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"python": version(), "programs": count, "differences": differences}, file)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
