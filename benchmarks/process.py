"""Children: what spawning and reaping one costs the parent."""

from __future__ import annotations

import asyncio
from subprocess import PIPE

from harness import program, program_benchmarks

# Found once, so that no loop is measured by how it searches PATH.
TRUE = "/bin/true"
CAT = "/bin/cat"


@program("create_subprocess_exec of /bin/true and wait, the parent's CPU")
async def process_spawn(n: int) -> None:
    for _ in range(n):
        process = await asyncio.create_subprocess_exec(TRUE)
        await process.wait()


@program("communicate with /bin/cat through two pipes, the parent's CPU")
async def process_communicate(n: int) -> None:
    for _ in range(n):
        process = await asyncio.create_subprocess_exec(CAT, stdin=PIPE, stdout=PIPE)
        answer, _ = await process.communicate(b"here")
        assert answer == b"here"


BENCHMARKS = program_benchmarks(__name__)
