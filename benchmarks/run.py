"""Measure event loops against each other in one interleaved run.

    python benchmarks/run.py                         everything, five rounds
    python benchmarks/run.py tasks 'tcp_echo_1k_*'   themes or benchmarks by name
    python benchmarks/run.py --quick                 does it all run? (the figures are rough)

In every round each benchmark runs on every loop, each time in a fresh process pinned to a
core, so that what disturbs the machine disturbs all loops alike. The figures are CPU time
per operation (all threads, user and system) or bytes. Printed are the minimum and, in
brackets, the median over the rounds. A ratio above 1 means that ouroloop is ahead; it is
made of the minima, or, with a peer in another process and for memory, the median of the
ratios within each round.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from statistics import median

import bulk
import callbacks
import churn
import lifecycle
import memory
import process
import sock
import streams
import tasks
import tcp
import tls
import udp
from harness import LOOPS, Backend, Benchmark, Settings, Unavailable
from rounds import Values, ratio
from serving import FLOOR
from targets import RIVALS, TARGETS

MODULES = (
    *(tasks, callbacks, lifecycle),
    *(tcp, streams, tls, udp, sock, process, churn, bulk),
    memory,
)
THEMES = {module.__name__: module.BENCHMARKS for module in MODULES}
Table = list[list[str]]
BEGIN_MARK = "<!-- written by ./dev bench --write -->"
END_MARK = "<!-- end -->"
QUICK = Settings(sample_seconds=0.005, samples=1, shrink=20)


def parse_arguments() -> argparse.Namespace:
    """The command line, with its names resolved."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", help="themes, benchmarks, or patterns of these; default all"
    )
    parser.add_argument("--loops", help="comma-separated; default all installed")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the tables between the page's marks"
    )
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    options = parser.parse_args()
    if options.write and (options.names or options.loops or options.quick):
        parser.error("--write is for a whole run")
    return options


def choose_benchmarks(names: list[str]) -> list[Benchmark]:
    """The benchmarks of these themes and names, in order; exit on an unknown one."""
    every = [benchmark for theme in THEMES.values() for benchmark in theme]
    chosen: list[Benchmark] = []
    for name in names:
        found = THEMES.get(name) or [one for one in every if fnmatch(one.name, name)]
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


def figures_table(benchmarks: list[Benchmark], values: Values, loops: list[str]) -> Table:
    """One row per benchmark: each loop's figure, then ouroloop's ratios."""
    columns = [*loops]
    if any(FLOOR in values[benchmark.name] for benchmark in benchmarks):
        columns.append(FLOOR)
    others = [loop for loop in columns if loop != "ouroloop"]
    ratios = others if "ouroloop" in loops else []
    table = [["benchmark", "unit", *columns, *(f"vs {other}" for other in ratios)]]
    for benchmark in benchmarks:
        row = [benchmark.name, benchmark.unit]
        taken = values[benchmark.name]
        for loop in columns:
            figures = taken.get(loop)
            row.append(f"{min(figures):.0f} ({median(figures):.0f})" if figures else "-")
        for other in ratios:
            if other in taken and "ouroloop" in taken:
                found = ratio(benchmark.judge, taken[other], taken["ouroloop"])
                row.append(f"{found.value:.2f}x")
            else:
                row.append("-")
        table.append(row)
    return table


def targets_table(benchmarks: list[Benchmark], values: Values) -> Table:
    """One row per target that was measured."""
    table = [["target", "wanted", "measured", "rounds", "reached"]]
    by_name = {benchmark.name: benchmark for benchmark in benchmarks}
    for target in TARGETS:
        if target.benchmark in by_name:
            found = target.check(by_name[target.benchmark], values)
            if found:
                table.append([target.benchmark, target.wanted(), *found])
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


def report(
    benchmarks: list[Benchmark],
    loops: list[str],
    rounds: int,
    values: Values,
    failures: dict[str, str],
    rough: bool,
) -> str:
    """Everything that was measured, as Markdown; rough figures are held against no target."""
    known = ", ".join(f"{key} {value}" for key, value in environment(loops).items())
    parts = [f"{known}; {time.strftime('%Y-%m-%d')}, {rounds} rounds, minimum (median)."]
    for theme, members in THEMES.items():
        rows = [benchmark for benchmark in benchmarks if benchmark in members]
        if rows:
            parts += [f"### {theme}", markdown(figures_table(rows, values, loops))]
    targets = [] if rough else targets_table(benchmarks, values)
    if len(targets) > 1:
        verdicts = Counter(row[-1] for row in targets[1:])
        counted = ", ".join(f"{verdicts[word]} {word}" for word in ("yes", "even", "NO"))
        parts += [f"### targets: {counted}", markdown(targets)]
    if failures:
        reasons = "\n".join(f"- {key}: {why}" for key, why in failures.items())
        parts += ["### not measured", reasons]
    return "\n\n".join(parts)


def write_between_marks(page: Path, text: str) -> None:
    """Replace what `page` has between its two marks."""
    before, begin, rest = page.read_text().partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not end:
        sys.exit(f"{page} has no {BEGIN_MARK} ... {END_MARK}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def main() -> int:
    """Measure and print; 1 if a benchmark could not run on ouroloop or asyncio."""
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
    text = report(benchmarks, loops, rounds, values, failures, options.quick)
    print(text)
    print(f"\n{time.monotonic() - started:.0f} s", file=sys.stderr)
    if options.write:
        write_between_marks(options.write, text)
    if options.json:
        known = environment(loops)
        everything = {"environment": known, "values": values, "failures": failures}
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    # What a rival lacks is a result; that ouroloop or the stock loop fails is an error.
    return any(not key.endswith(RIVALS) for key in failures)


if __name__ == "__main__":
    sys.exit(main())
