"""The terms every benchmark is written in, and how one is timed inside its process.

A *program* is ``async def program(n)``: it does ``n`` operations on whatever loop is
running, so each loop runs the very same code. A *benchmark* is a named measurement that
returns one figure for one loop; most of them time a program in a fresh subprocess.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from time import process_time_ns
from typing import Any

HERE = Path(__file__).resolve().parent
LOOPS = ("asyncio", "uvloop", "rloop", "ouroloop")


class Unavailable(Exception):
    """What was asked for cannot run here; the text says why."""


@dataclass(frozen=True)
class Backend:
    """One event loop implementation: how to make a loop, how to run a coroutine."""

    name: str
    new_loop: Callable[[], asyncio.AbstractEventLoop]
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    @classmethod
    def load(cls, name: str) -> Backend:
        """Import the package `name`; raise Unavailable if that fails."""
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise Unavailable(f"{name} is not installed ({error})") from error
        if hasattr(module, "run"):
            return cls(name, module.new_event_loop, module.run)

        def run(main: Coroutine[Any, Any, Any]) -> Any:
            # A package without a run() of its own is used through the stdlib's.
            if sys.version_info < (3, 11):
                raise Unavailable(f"{name} has no run() and Python no asyncio.Runner")
            with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
                return runner.run(main)

        return cls(name, module.new_event_loop, run)


@dataclass(frozen=True)
class Settings:
    """What the command line decides for every measurement."""

    sample_seconds: float = 0.1
    samples: int = 3
    # Divides the sizes that do not adapt themselves: requests, connections, tasks.
    shrink: int = 1
    server_cpu: int = 0
    client_cpu: int = 1


@dataclass(frozen=True)
class Benchmark:
    """A figure that can be taken for one loop at a time.

    `measure` returns the figure in `unit`; smaller is better. `judge` picks the figure
    a ratio is made of: the "min" over rounds where noise can only add, the "median"
    where it goes both ways. `rounds` caps the repeats of what hardly varies.
    """

    name: str
    about: str
    unit: str
    measure: Callable[[str, Settings], float]
    judge: str = "min"
    rounds: int = 1000
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """`function(n)` for a coroutine program, `function(backend, n)` for a plain one."""

    name: str
    about: str
    function: Callable[..., Any]
    # n is always a multiple of this, so that batches of a fixed size come out whole.
    step: int
    coroutine: bool


PROGRAMS: dict[str, Program] = {}


def program(
    about: str, step: int = 1
) -> Callable[[Callable[[int], Awaitable[None]]], Callable[[int], Awaitable[None]]]:
    """Register an ``async def program(n)`` that is timed on a running loop."""

    def register(
        function: Callable[[int], Awaitable[None]],
    ) -> Callable[[int], Awaitable[None]]:
        name = function.__name__
        PROGRAMS[name] = Program(name, about, function, step, coroutine=True)
        return function

    return register


def plain_program(
    about: str,
) -> Callable[[Callable[[Backend, int], None]], Callable[[Backend, int], None]]:
    """Register a ``def program(backend, n)`` that makes and runs loops itself."""

    def register(
        function: Callable[[Backend, int], None],
    ) -> Callable[[Backend, int], None]:
        name = function.__name__
        PROGRAMS[name] = Program(name, about, function, 1, coroutine=False)
        return function

    return register


def program_benchmarks(module: str) -> list[Benchmark]:
    """The programs registered by `module`, each as a benchmark in CPU ns/operation."""

    def measured_by(chosen: Program) -> Callable[[str, Settings], float]:
        def measure(loop: str, settings: Settings) -> float:
            answer = run_python(
                "worker.py",
                chosen.name,
                loop,
                f"--sample-seconds={settings.sample_seconds}",
                f"--samples={settings.samples}",
                f"--cpu={settings.server_cpu}",
            )
            return float(json.loads(answer)["ns"])

        return measure

    return [
        Benchmark(chosen.name, chosen.about, "ns", measured_by(chosen))
        for chosen in PROGRAMS.values()
        if chosen.function.__module__ == module
    ]


def time_program(chosen: Program, backend: Backend, sample_seconds: float, samples: int) -> float:
    """The least CPU nanoseconds per operation among `samples` samples.

    CPU time of the whole process, all threads, user and system. The number of
    operations grows until a sample takes `sample_seconds`; the runs before that are the
    warm-up. The garbage collector stays on, as users run it.
    """
    if chosen.coroutine:
        loop = backend.new_loop()
        asyncio.set_event_loop(loop)

        async def timed(n: int) -> int:
            gc.collect()
            start = process_time_ns()
            await chosen.function(n)
            return process_time_ns() - start

        def sample(n: int) -> int:
            return int(loop.run_until_complete(timed(n)))
    else:

        def sample(n: int) -> int:
            gc.collect()
            start = process_time_ns()
            chosen.function(backend, n)
            return process_time_ns() - start

    wanted_ns = sample_seconds * 1e9
    n, spent = chosen.step, sample(chosen.step)
    while spent < wanted_ns / 2:
        growth = min(10.0, max(2.0, wanted_ns / max(spent, 1)))
        n = round(n * growth / chosen.step) * chosen.step
        spent = sample(n)
    best = min(sample(n) for _ in range(samples)) / n
    if chosen.coroutine:
        asyncio.set_event_loop(None)
        loop.close()
    return best


def pin(cpu: int) -> None:
    """Keep this process on one core, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[cpu % len(cores)]})


def run_python(script: str, *arguments: str, timeout: float = 120.0) -> str:
    """Run a script of this folder with this interpreter; its stdout."""
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / script), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"no answer within {timeout:.0f} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Unavailable(lines[-1])
    return done.stdout
