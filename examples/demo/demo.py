"""Run one unmodified asyncio program on asyncio, uvloop and ouroloop, and compare.

    python examples/demo/demo.py [--out DIR]

program.py stays as it is; a copy with one line changed runs on each of the other loops, in a
process of its own, several rounds in turn so that noise hits all alike. The results must be
the same to the byte. Prints a table and writes a chart as PNG and SVG. Exits with 0 only if
every run ended well and all results agree.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAM = HERE / "program.py"
LINE = "from asyncio import run"
LOOPS = ("asyncio", "uvloop", "ouroloop")
WHOLE = "whole program"
# A run takes five seconds or so; one that takes this long hangs.
RUN_LIMIT_SECONDS = 110


@dataclass
class Run:
    """One run of the program on one loop: per part seconds, CPU seconds, digest."""

    loop: str
    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


class Progress:
    """What is going on: a line that rewrites itself, or plain lines away from a terminal."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()

    def show(self, text: str) -> None:
        """Something moved."""
        if self.live:
            print(f"\r\033[K  {text}", end="", flush=True)

    def finish(self, text: str) -> None:
        """A stage ended: this line stays."""
        print(f"\r\033[K  {text}" if self.live else f"  {text}", flush=True)


class Failure(Exception):
    """A run that did not end well."""


def line_for(loop: str) -> str:
    """The program's line that chooses the loop."""
    return LINE.replace("asyncio", loop)


def run_program(loop: str, label: str, scale: float, folder: Path, progress: Progress) -> Run:
    """Run the program on `loop` to its end, showing how far it is."""
    source = PROGRAM.read_text()
    if source.count(LINE + "\n") != 1:
        raise Failure(f"{PROGRAM} must contain the line {LINE!r} once")
    script = folder / f"program_on_{loop}.py"
    script.write_text(source.replace(LINE + "\n", line_for(loop) + "\n"))
    run = Run(loop)
    # stderr goes to a file: a pipe that nobody reads could fill up and stop the program.
    with (folder / "stderr").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, str(script), str(scale)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        watchdog = threading.Timer(RUN_LIMIT_SECONDS, process.kill)
        watchdog.start()
        try:
            for line in process.stdout:
                event = json.loads(line)
                part = event["part"]
                if "digest" in event:
                    run.wall[part], run.cpu[part] = event["wall"], event["cpu"]
                    run.digests[part] = event["digest"]
                else:
                    bar = "#" * int(20 * event["done"])
                    progress.show(f"{label} {part:<17}[{bar:<20}]")
        finally:
            process.stdout.close()
            code = process.wait()
            watchdog.cancel()
        errors.seek(0)
        complaint = errors.read().strip()
    if code:
        why = complaint or f"no message; it is killed after {RUN_LIMIT_SECONDS} seconds"
        raise Failure(f"on {loop} the program ended with {code}:\n{why}")
    for figures in (run.wall, run.cpu):
        figures[WHOLE] = sum(figures.values())
    progress.finish(f"{label} {run.wall[WHOLE]:.1f} s, of which CPU {run.cpu[WHOLE]:.1f} s")
    return run


def run_rounds(
    loops: list[str], rounds: int, seconds: float, scale: float, progress: Progress
) -> list[Run]:
    """All loops in turn, as many rounds as asked for and as fit into the time."""
    runs = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            turn = number % len(loops)
            for loop in loops[turn:] + loops[:turn]:
                label = f"round {number + 1}/{rounds}  {loop:<9}"
                runs.append(run_program(loop, label, scale, Path(folder), progress))
            elapsed = time.monotonic() - started
            if number + 1 < rounds and elapsed * (number + 2) / (number + 1) > seconds:
                print(f"  {number + 1} rounds are enough: this machine takes its time")
                break
    return runs


def disagreements(runs: list[Run]) -> list[str]:
    """The parts whose results were not the same in all runs."""
    first = runs[0].digests
    return [
        f"{part}: {run.loop} differs from {runs[0].loop}"
        for run in runs[1:]
        for part in {**first, **run.digests}
        if run.digests.get(part) != first.get(part)
    ]


def best(runs: list[Run]) -> dict[str, dict[str, tuple[float, float]]]:
    """{part: {loop: (seconds, CPU seconds)}}, each the least of all rounds."""
    return {
        part: {
            run.loop: (
                min(other.wall[part] for other in runs if other.loop == run.loop),
                min(other.cpu[part] for other in runs if other.loop == run.loop),
            )
            for run in runs
        }
        for part in runs[0].wall
    }


def table(figures: dict[str, dict[str, tuple[float, float]]], loops: list[str]) -> str:
    """Time, CPU time and how many times less CPU than asyncio, per part and loop."""
    lines = [" " * 18 + "".join(f"{loop:^25}" for loop in loops)]
    heads = f"{'time':>8}{'CPU':>8}{'ratio':>8} "
    lines.append(" " * 18 + heads * len(loops))
    for part, row in figures.items():
        cells = []
        for loop in loops:
            wall, cpu = row[loop]
            cells.append(f"{wall:6.2f} s{cpu:6.2f} s{row[loops[0]][1] / cpu:7.2f}x ")
        if part == WHOLE:
            lines.append("-" * (18 + 25 * len(loops)))
        lines.append(f"{part:<18}" + "".join(cells))
    return "\n".join(lines)


def main() -> int:
    """Run, compare, print, draw; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / ".dev" / "demo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=80, help="begin no round beyond")
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work")
    parser.add_argument("--loops", default=",".join(LOOPS), help="the first is the measure")
    options = parser.parse_args()

    asked = options.loops.split(",")
    loops = [loop for loop in asked if importlib.util.find_spec(loop)]
    needed = [name for name in asked if name not in loops and name != "uvloop"]
    needed += [name for name in ("aiohttp", "matplotlib") if not importlib.util.find_spec(name)]
    if needed:
        print(f"not installed: {', '.join(needed)}; `./dev demo` sets everything up")
        return 1
    print(f"The program is {PROGRAM}. One line of it chooses the loop:\n")
    for loop in loops:
        print(f"    {line_for(loop)}")
    print()
    if "uvloop" in asked and "uvloop" not in loops:
        print("uvloop is not installed here (has it a wheel for this Python?): left out.\n")
    try:
        runs = run_rounds(loops, options.rounds, options.seconds, options.scale, Progress())
    except Failure as failure:
        print(f"\nFAILED: {failure}")
        return 1
    figures = best(runs)
    print(f"\nThe best of {len(runs) // len(loops)} rounds; ratio = {loops[0]}'s CPU time / this\n")
    print(table(figures, loops))
    different = disagreements(runs)
    if different:
        print("\nFAILED: the results differ:", *different, sep="\n  ")
        return 1
    print(f"\nThe results of all {len(runs)} runs are the same, every page to the byte.")
    # Imported late: matplotlib takes a second, and --help should not wait for it.
    from chart import draw

    for file in draw(figures, loops, WHOLE, options.out):
        print(f"chart: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
