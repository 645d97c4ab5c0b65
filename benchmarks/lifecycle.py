"""What a loop costs before and after it works: making, running nothing, closing."""

from __future__ import annotations

from harness import Backend, plain_program, program_benchmarks


async def nothing() -> None:
    """The main coroutine of a program that does nothing."""


@plain_program("make a loop and close it")
def loop_create_close(backend: Backend, n: int) -> None:
    for _ in range(n):
        backend.new_loop().close()


@plain_program("the package's run() of an empty coroutine")
def run_empty(backend: Backend, n: int) -> None:
    for _ in range(n):
        backend.run(nothing())


BENCHMARKS = program_benchmarks(__name__)
