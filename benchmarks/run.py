"""Measure event loops against each other in one interleaved run.

    python benchmarks/run.py                     everything, five rounds
    python benchmarks/run.py tasks tcp_echo_1k   a theme or a benchmark by name
    python benchmarks/run.py --quick             does it all run? (the figures are rough)

In every round each benchmark runs on every loop, each time in a fresh process pinned to a
core, so that what disturbs the machine disturbs all loops alike. The figures are CPU time
per operation (all threads, user and system) or bytes. Printed are the minimum and, in
brackets, the median over the rounds; ratios are made of the minima, for TCP and memory of
the medians, and above 1 means that ouroloop is ahead.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import callbacks
import lifecycle
import memory
import tasks
import tcp
from harness import LOOPS, Backend, Benchmark, Settings, Unavailable
from targets import TARGETS, Figures

THEMES = {
    module.__name__: module.BENCHMARKS for module in (tasks, callbacks, lifecycle, tcp, memory)
}
# values[benchmark][loop]: one figure per round.
Values = dict[str, dict[str, list[float]]]
QUICK = Settings(sample_seconds=0.005, samples=1, shrink=20)


def parse_arguments() -> argparse.Namespace:
    """The command line, with its names resolved."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="themes or benchmarks; default all")
    parser.add_argument("--loops", help="comma-separated; default all installed")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    return parser.parse_args()


def choose_benchmarks(names: list[str]) -> list[Benchmark]:
    """The benchmarks of these themes and names, in order; exit on an unknown one."""
    every = [benchmark for theme in THEMES.values() for benchmark in theme]
    chosen: list[Benchmark] = []
    for name in names:
        found = THEMES.get(name) or [one for one in every if one.name == name]
        if not found:
            themes = ", ".join(THEMES)
            sys.exit(f"no benchmark {name!r}; try --list, or a theme: {themes}")
        chosen += found
    return chosen or every


def choose_loops(wanted: str | None, quick: bool) -> list[str]:
    """The loops asked for that are installed here; say which are not."""
    names = wanted.split(",") if wanted else list(LOOPS)
    if quick and not wanted:
        names = ["asyncio", "ouroloop"]
    loops = []
    for name in names:
        try:
            Backend.load(name)
        except Unavailable as error:
            print(f"left out: {error}", file=sys.stderr)
        else:
            loops.append(name)
    if not loops:
        sys.exit("no loop to measure")
    return loops


def measure(
    benchmarks: list[Benchmark], loops: list[str], rounds: int, settings: Settings
) -> tuple[Values, dict[str, str]]:
    """All figures, and why a benchmark could not run on a loop."""
    values: Values = {benchmark.name: {} for benchmark in benchmarks}
    failures: dict[str, str] = {}
    for number in range(rounds):
        for benchmark in benchmarks:
            if number >= benchmark.rounds:
                continue
            candidates = [*loops, *benchmark.references]
            # Another loop begins in each round: none profits from its place.
            turn = number % len(candidates)
            for loop in candidates[turn:] + candidates[:turn]:
                key = f"{benchmark.name} on {loop}"
                if key in failures:
                    continue
                progress(f"round {number + 1}/{rounds}  {key}")
                try:
                    value = benchmark.measure(loop, settings)
                except Unavailable as error:
                    failures[key] = str(error)
                else:
                    values[benchmark.name].setdefault(loop, []).append(value)
    progress("")
    return values, failures


def progress(text: str) -> None:
    """One line on a terminal that overwrites itself; silent elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def judged(benchmarks: list[Benchmark], values: Values) -> Figures:
    """The figure of each benchmark and loop that ratios are made of."""

    def pick(judge: str, taken: list[float]) -> float:
        return min(taken) if judge == "min" else statistics.median(taken)

    return {
        benchmark.name: {
            loop: pick(benchmark.judge, taken) for loop, taken in values[benchmark.name].items()
        }
        for benchmark in benchmarks
    }


def figures_table(
    benchmarks: list[Benchmark], values: Values, figures: Figures, loops: list[str]
) -> list[list[str]]:
    """One row per benchmark: each loop's figure, then ouroloop's ratios."""
    columns = [*loops]
    if any(tcp.FLOOR in values[benchmark.name] for benchmark in benchmarks):
        columns.append(tcp.FLOOR)
    others = [loop for loop in columns if loop != "ouroloop"]
    ratios = others if "ouroloop" in loops else []
    table = [["benchmark", "unit", *columns, *(f"vs {other}" for other in ratios)]]
    for benchmark in benchmarks:
        row = [benchmark.name, benchmark.unit]
        for loop in columns:
            taken = values[benchmark.name].get(loop)
            cell = f"{min(taken):.0f} ({statistics.median(taken):.0f})" if taken else ""
            row.append(cell)
        judged_row = figures[benchmark.name]
        for other in ratios:
            pair = judged_row.get(other), judged_row.get("ouroloop")
            row.append(f"{pair[0] / pair[1]:.2f}x" if pair[0] and pair[1] else "")
        table.append(row)
    return table


def targets_table(figures: Figures) -> list[list[str]]:
    """One row per target that was measured."""
    table = [["target", "wanted", "measured", "reached"]]
    for target in TARGETS:
        result = target.check(figures)
        if result:
            measured, reached = result
            row = [target.benchmark, target.wanted(), measured]
            table.append([*row, "yes" if reached else "NO"])
    return table


def markdown(table: list[list[str]]) -> str:
    """The table as Markdown with aligned columns, to be read and to be pasted."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)


def environment(loops: list[str]) -> dict[str, str]:
    """What the figures depend on."""
    known = {"python": platform.python_version(), "machine": machine()}
    for loop in loops:
        if loop != "asyncio":
            known[loop] = importlib.metadata.version(loop)
    return known


def machine() -> str:
    """The processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main() -> int:
    """Measure and print; 1 if anything could not be measured."""
    options = parse_arguments()
    benchmarks = choose_benchmarks(options.names)
    if options.list:
        for benchmark in benchmarks:
            print(f"{benchmark.name:24} {benchmark.unit:3} {benchmark.about}")
        return 0
    loops = choose_loops(options.loops, options.quick)
    rounds = options.rounds or (1 if options.quick else 5)
    settings = QUICK if options.quick else Settings()

    started = time.monotonic()
    values, failures = measure(benchmarks, loops, rounds, settings)
    figures = judged(benchmarks, values)
    known = environment(loops)
    print(", ".join(f"{key} {value}" for key, value in known.items()))
    print(f"{rounds} rounds, {time.monotonic() - started:.0f} s; min (median)\n")
    print(markdown(figures_table(benchmarks, values, figures, loops)))
    reached = targets_table(figures)
    if len(reached) > 1 and not options.quick:
        print("\n" + markdown(reached))
    for key, why in failures.items():
        print(f"not measured: {key}: {why}")
    if options.json:
        report = {"environment": known, "values": values, "failures": failures}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
