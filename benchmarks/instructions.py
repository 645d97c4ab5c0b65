"""Instructions per operation, counted by valgrind's callgrind: exact on a noisy machine.

    python benchmarks/instructions.py                         every program
    python benchmarks/instructions.py create_task --top 15    and where they are spent
    python benchmarks/instructions.py tls_echo_1k --top 15    of a server, by its name

Each program runs N and then 2N operations in one process after a warm-up; the figure is
(I(2N) - I(N)) / N, so neither start-up nor a program's fixed part is in it. A server is
run twice, under the load of N and of 2N operations. User space only: what the kernel does
is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from harness import LOOPS, PROGRAMS, Backend, Program, Unavailable
from run import THEMES, choose_loops, markdown, progress
from serving import Load, server

OPERATIONS = 2_000
# Nothing else calls it, so a call is a mark where callgrind writes out its counters.
MARK = "getppid"
SERVERS = {
    benchmark.name: benchmark.measure
    for theme in THEMES.values()
    for benchmark in theme
    if isinstance(benchmark.measure, Load)
}
Profile = Counter[str]


def run_marked(names: list[str], loop: str) -> None:
    """Inside valgrind: run each program with N and 2N operations, a mark around each."""
    backend = Backend.load(loop)
    for name in names:
        chosen = PROGRAMS[name]
        n = operations(name)

        run_program(chosen, backend, n)
        for count in (n, 2 * n):
            os.getppid()
            run_program(chosen, backend, count)
        os.getppid()


def run_program(chosen: Program, backend: Backend, n: int) -> None:
    """Run `n` operations, a coroutine on a loop of its own."""
    if not chosen.coroutine:
        chosen.function(backend, n)
        return
    loop = backend.new_loop()
    loop.run_until_complete(chosen.function(n))
    loop.close()


def operations(name: str) -> int:
    """N for this program: a multiple of its step, less for whole loops."""
    step = PROGRAMS[name].step
    wanted = OPERATIONS if PROGRAMS[name].coroutine else OPERATIONS // 20
    return max(1, wanted // step) * step


def count(names: list[str], loop: str) -> dict[str, tuple[float, Profile]]:
    """Per program: instructions per operation, and the same by function."""
    if not names:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, PYTHONHASHSEED="0")
        done = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                f"--dump-before={MARK}",
                "--compress-strings=no",
                f"--callgrind-out-file={folder}/out",
                sys.executable,
                __file__,
                *names,
                f"--inside={loop}",
            ],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            own = [line for line in done.stderr.splitlines() if line[:2] not in ("==", "--")]
            raise Unavailable(own[-1] if own else f"exit code {done.returncode}")
        dumps = [Path(folder, f"out.{number}") for number in range(1, 3 * len(names) + 1)]
        results: dict[str, tuple[float, Profile]] = {}
        for place, name in enumerate(names):
            # Dump 1 is what came before the first mark of a program.
            once, twice = (self_cost(dumps[3 * place + part]) for part in (1, 2))
            n = operations(name)
            profile = Counter({key: (twice[key] - once[key]) / n for key in twice})
            results[name] = (sum(profile.values()), profile)
        return results


def count_server(load: Load, loop: str) -> tuple[float, Profile]:
    """The same of a server under load."""
    load.prepare()
    n = min(load.count, OPERATIONS) if load.count > 1_000 else load.count // 8
    profiles = []
    for operations in (n, 2 * n):
        with tempfile.TemporaryDirectory() as folder:
            dump = Path(folder, "out")
            command = ["valgrind", "--tool=callgrind", "--compress-strings=no"]
            command.append(f"--callgrind-out-file={dump}")
            os.environ["PYTHONHASHSEED"] = "0"
            with server(load.script, load.kind, loop, 0, under=command) as (address, pid):
                load.run(address, pid, operations, 1)
            profiles.append(self_cost(dump))
    once, twice = profiles
    # A load makes a tenth more, its warm-up.
    profile = Counter({key: (twice[key] - once[key]) / (n * 1.1) for key in twice})
    return sum(profile.values()), profile


def self_cost(dump: Path) -> Profile:
    """Instructions by function, without those of the functions it calls."""
    costs: Profile = Counter()
    function, inclusive = "", False
    with dump.open() as lines:
        for line in lines:
            if line.startswith("fn="):
                # Callgrind numbers the levels of a recursion: f, f'2, f'3.
                function = re.sub(r"'\d+$", "", line[3:].strip())
            elif line.startswith("calls="):
                # The line after it is what the callee cost; it stands there as well.
                inclusive = True
            elif re.match(r"[+*\-\d]", line):
                if not inclusive:
                    costs[function] += int(line.split()[1])
                inclusive = False
    return costs


def print_top(name: str, loop: str, profile: Profile, top: int) -> None:
    """The functions that cost most, in instructions per operation."""
    print(f"\n{name} on {loop}, {sum(profile.values()):.0f} instructions per operation:")
    for function, cost in profile.most_common(top):
        print(f"{cost:10.0f}  {function}")


def main() -> int:
    """Count and print; 1 if a loop could not be counted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="of ./dev bench --list; default all programs")
    parser.add_argument("--loops", help="comma-separated; default all installed")
    parser.add_argument("--top", type=int, default=0, help="functions to list")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.names) - set(PROGRAMS) - set(SERVERS)
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    names = options.names or list(PROGRAMS)
    if options.inside:
        run_marked(names, options.inside)
        return 0
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed (Debian: apt-get install valgrind)")

    counted: dict[str, dict[str, tuple[float, Profile]]] = {}
    failures = []
    for loop in choose_loops(options.loops or ",".join(LOOPS), quick=False):
        progress(f"{loop}: {', '.join(names)}")
        try:
            counted[loop] = count([name for name in names if name in PROGRAMS], loop)
            for name in set(names) & set(SERVERS):
                counted[loop][name] = count_server(SERVERS[name], loop)
        except Unavailable as error:
            failures.append(f"not counted: {loop}: {error}")
    progress("")
    table = [["instructions", *counted]]
    for name in names:
        table.append([name, *(f"{counted[loop][name][0]:.0f}" for loop in counted)])
    print(markdown(table))
    if options.top:
        for loop in counted:
            for name in names:
                print_top(name, loop, counted[loop][name][1], options.top)
    for failure in failures:
        print(failure)
    if options.json:
        figures = {loop: {name: one[0] for name, one in counted[loop].items()} for loop in counted}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
