"""Run the interpreter's own test.test_asyncio on ouroloop, or on another loop as a control.

    python tests/asyncio/run.py [--loop ouroloop|asyncio|uvloop] [--types own|stock] [module ...]

One process per module and a time limit per test: a test that hangs or crashes is a failure of that
test, and the rest of the module goes on in a new process. Failures are compared with the table in
expected.py, and those outside it are tried on stock asyncio in the same harness: what fails there
too is the machine's doing, not the loop's, unless it hangs or crashes. Exit code 0 means nothing
else failed.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import fnmatch
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time

import modules
from expected import entries, kinds_not_made
from modules import short

HERE = os.path.dirname(os.path.abspath(__file__))

# What some tests are about (modules.py), as counting.py names it.
PYTHON_TYPES = ("asyncio.tasks.Task", "asyncio.futures.Future")
BASE_LOOPS = (
    "asyncio.base_events.BaseEventLoop",
    "asyncio.selector_events.BaseSelectorEventLoop",
)
BROUGHT_DOWN = ("crash", "hang")
FAILED = ("fail", "error", *BROUGHT_DOWN)


@dataclasses.dataclass
class ModuleRun:
    """What one module did: outcome and text by test id; what it made, by kind and type."""

    module: str
    outcomes: dict = dataclasses.field(default_factory=dict)
    made: dict = dataclasses.field(default_factory=collections.Counter)
    processes: int = 0
    seconds: float = 0.0

    def count(self, *outcomes):
        return sum(outcome in outcomes for outcome, _ in self.outcomes.values())


def run_module(module, *, loop="ouroloop", types="own", limit=60.0, only=None, match=None):
    """Run one module to its end, in as many processes as crashes and hangs make necessary.

    `only` is a list of test ids, `match` a pattern over "Class.test"; None runs all.
    """
    result = ModuleRun(module)
    started = time.monotonic()
    while True:
        finished = run_process(result, loop, types, limit, only, match)
        result.processes += 1
        if finished:
            break
    result.seconds = time.monotonic() - started
    return result


def run_process(result, loop, types, limit, only, match):
    """Run what is left of the module in one process; False if a test brought the process down."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="test_asyncio_"))
        output = stack.enter_context(open(os.path.join(directory, "output"), "w+b"))
        read_fd, write_fd = os.pipe()
        stack.callback(os.close, read_fd)
        command = [
            sys.executable,
            os.path.join(HERE, "worker.py"),
            result.module,
            "--loop",
            loop,
            "--types",
            types,
        ]
        command += ["--limit", str(limit), "--fd", str(write_fd)]
        if match is not None:
            command += ["--match", match]
        for option, ids in (("--only", only), ("--done", list(result.outcomes) or None)):
            if ids is not None:
                path = os.path.join(directory, option.strip("-"))
                with open(path, "w") as file:
                    json.dump(list(ids), file)
                command += [option, path]
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(write_fd,),
            start_new_session=True,
        )
        os.close(write_fd)
        # Whatever the tests left running is in the worker's session.
        stack.callback(kill_group, process)

        running, done, hung = None, False, False
        for event in read_events(read_fd, process, limit + 30):
            if event is None:
                hung = True
                break
            kind = event.pop("event")
            if kind == "start":
                running = event["id"]
            elif kind == "end":
                result.outcomes[event["id"]] = event["outcome"], event["text"]
                running = None
            elif kind == "done":
                done = True
                for kind, name, number in event["made"]:
                    result.made[kind, name] += number
        if hung:
            kill_group(process)
        status = process.wait(timeout=limit + 30) if done else wait_or_kill(process)
        output.seek(0)
        tail = output.read()[-6000:].decode(errors="replace")
        if done and running is None and status == 0:
            return True
        timed_out = hung or "Timeout (" in tail
        outcome = "hang" if timed_out else "crash"
        what = (
            f"no end within {limit:g} s" if timed_out else f"the process ended with status {status}"
        )
        if running is None and done:
            # Nothing is left for a new process: only the end of this one went wrong.
            result.outcomes["end of the process"] = outcome, f"{what}\n{tail}"
            return True
        if running is None and not result.outcomes:
            result.outcomes["start of the process"] = outcome, f"{what}\n{tail}"
            return True
        name = running or f"between tests, after {list(result.outcomes)[-1]}"
        if name in result.outcomes:
            raise RuntimeError(f"{result.module} stops twice at {name}: {tail}")
        result.outcomes[name] = outcome, f"{what}\n{tail}"
        return False


def read_events(fd, process, silence):
    """Yield the worker's events; None after a silence that its own watchdog should have ended."""
    pending = b""
    last = time.monotonic()
    while True:
        readable, _, _ = select.select([fd], [], [], 0.5)
        if readable:
            data = os.read(fd, 1 << 16)
            if not data:
                return
            last = time.monotonic()
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                yield json.loads(line)
        elif process.poll() is not None:
            # A forked child of a test may keep the pipe open after the worker itself is gone.
            return
        elif time.monotonic() - last > silence:
            yield None
            return


def wait_or_kill(process):
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        kill_group(process)
        return process.wait()


def kill_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def child_environment():
    environment = dict(os.environ)
    # The suite decides about debug mode itself.
    for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS"):
        environment.pop(name, None)
    return environment


@dataclasses.dataclass
class Verdict:
    """What is wrong with a run once the table and the control run have been looked at."""

    unexpected: dict
    expected: dict
    machine: dict
    stale: list
    # What the module made that it should not have.
    made: list

    @property
    def ok(self):
        return not (self.unexpected or self.stale or self.made)


def judge(result, *, loop="ouroloop", types="own", limit=60.0, whole=True):
    """Sort the failures: unexpected, expected (table), the machine's own (stock asyncio fails).

    A hang or a crash is nothing to be excused, and a test that is skipped here and passes on stock
    asyncio has failed.

    `whole`: all of the module has run, so that what it made tells whether the swap worked.
    """
    ids = {short(result.module, test_id): test_id for test_id in result.outcomes}
    outcomes = {name: result.outcomes[test_id] for name, test_id in ids.items()}
    expected, stale = {}, []
    if loop == "ouroloop":
        for entry in entries(result.module):
            # Not every patch release of a version has the test.
            for name in fnmatch.filter(outcomes, entry.pattern):
                outcome, _ = outcomes[name]
                if outcome in FAILED and outcome != "crash":
                    expected[name] = entry.reason
                elif outcome not in FAILED and not entry.may_pass:
                    stale.append(f"{name} is listed as failing and does not fail ({entry.reason})")
    unexpected = {
        name: text
        for name, (outcome, text) in outcomes.items()
        if outcome in FAILED and name not in expected
    }
    skipped = [name for name, (outcome, _) in outcomes.items() if outcome == "skip"]
    machine = {}
    if (unexpected or skipped) and loop != "asyncio":
        again = [ids[name] for name in (*unexpected, *skipped)]
        control = run_module(result.module, loop="asyncio", limit=limit, only=again)
        for test_id, (on_asyncio, _) in control.outcomes.items():
            name = short(result.module, test_id)
            outcome, text = outcomes.get(name, ("", ""))
            if outcome == "skip" and on_asyncio == "ok":
                unexpected[name] = f"skipped, and passes on stock asyncio: {text}"
            elif name in unexpected and outcome not in BROUGHT_DOWN and on_asyncio in FAILED:
                machine[name] = unexpected.pop(name)
    made = []
    # A process that was brought down cannot tell what it made.
    if whole and loop == "ouroloop" and not unexpected and outcomes:
        made = made_wrongly(result, types)
    return Verdict(unexpected, expected, machine, stale, made)


def made_wrongly(result, types):
    """What shows that some of the tests did not run on our loop and types, as lines."""
    kinds = ("loops", "tasks", "futures") if types == "own" and has_own_types() else ("loops",)
    lines = [
        f"made {number} {name} instead of ours"
        for (kind, name), number in sorted(result.made.items())
        if kind in kinds and not is_own(name) and not is_tested(result.module, name)
    ]
    own = {kind for (kind, name), number in result.made.items() if number and is_own(name)}
    for kind in kinds[:2]:  # many modules need no future
        listed = kind in kinds_not_made(result.module)
        if kind in own and listed:
            lines.append(f"is listed as making no {kind} of ours, and makes some")
        elif kind not in own and not listed:
            lines.append(f"made no {kind} of ours")
    if types == "stock" and not result.made["tasks", "_asyncio.Task"]:
        lines.append("made no task of asyncio's own type")
    return lines


def has_own_types():
    """Not on a CPython whose layout the build does not know: there asyncio's types are ours."""
    import ouroloop

    return ouroloop.build_info()["fast_types"]


def is_own(name):
    return name.startswith("ouroloop.")


def is_tested(module, name):
    """Do tests of this module make asyncio's own type on purpose?"""
    return (name in PYTHON_TYPES and module in modules.WITH_PYTHON_TYPES) or (
        name in BASE_LOOPS and module in modules.WITH_TEST_LOOPS
    )


def summary(result, verdict):
    """One line: what passed, what did not, and on which types it ran."""
    parts = [
        f"{len(result.outcomes)} tests",
        f"{result.count('ok')} passed",
        f"{result.count('skip')} skipped",
    ]
    for label, names in (
        ("FAILED", verdict.unexpected),
        ("expected to fail", verdict.expected),
        ("fail on stock asyncio too", verdict.machine),
        ("stale in the table", verdict.stale),
        ("MADE WRONGLY", verdict.made),
    ):
        if names:
            parts.append(f"{len(names)} {label}")
    made = [f"{number} {name}" for (_, name), number in sorted(result.made.items())]
    return f"{result.module}: {', '.join(parts)}; {result.seconds:.1f} s; made {', '.join(made)}"


def details(verdict):
    lines = []
    for name, text in verdict.unexpected.items():
        lines += [f"--- {name}", text.rstrip()]
    lines += [f"--- {line}" for line in (*verdict.stale, *verdict.made)]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="default: all that count")
    parser.add_argument("--loop", choices=("ouroloop", "asyncio", "uvloop"), default="ouroloop")
    parser.add_argument(
        "--types", choices=("own", "stock"), default="own", help="Task and Future under test"
    )
    parser.add_argument(
        "--limit", type=float, default=60.0, help="seconds for one test (default: 60)"
    )
    parser.add_argument(
        "-k", "--match", help="run only the tests whose Class.test matches this pattern"
    )
    parser.add_argument(
        "-j", "--jobs", type=int, default=os.cpu_count(), help="modules at a time (default: CPUs)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the counts there as well")
    args = parser.parse_args()

    missing = modules.missing()
    if missing:
        print(missing)
        return 2

    def run_one(module):
        result = run_module(
            module, loop=args.loop, types=args.types, limit=args.limit, match=args.match
        )
        verdict = judge(
            result, loop=args.loop, types=args.types, limit=args.limit, whole=not args.match
        )
        return result, verdict

    chosen = args.modules or [name for name in modules.everything() if name not in modules.APART]
    started = time.monotonic()
    counts, wrong = {}, 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for module, future in [(module, pool.submit(run_one, module)) for module in chosen]:
            result, verdict = future.result()
            if not result.outcomes:
                print(f"{module}: no test to run")
                wrong += not (args.match or module in modules.BESIDE)
                continue
            print(summary(result, verdict), flush=True)
            counts[module] = {
                "run": len(result.outcomes),
                "passed": result.count("ok"),
                "skipped": result.count("skip"),
                "excepted": len(verdict.expected),
                "failed": len(verdict.unexpected) + len(verdict.stale) + len(verdict.made),
                "failed on asyncio": len(verdict.machine),
            }
            if not verdict.ok:
                wrong += 1
                print(details(verdict), flush=True)
    if not counts:
        print("no test ran")
        return 1
    total = collections.Counter()
    for numbers in counts.values():
        total.update(numbers)
    version = ".".join(map(str, sys.version_info[:3]))
    print(
        f"Python {version}: {len(counts)} modules, "
        + ", ".join(f"{number} {what}" for what, number in total.items())
        + f", {time.monotonic() - started:.0f} s"
    )
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"python": version, "modules": counts}, file)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
