"""The interpreter's own asyncio tests, module by module, on ouroloop (see run.py)."""

import ast
import concurrent.futures
import faulthandler
import importlib.util
import json
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import counting
import expected
import modules
import report
import run
import swap

HERE = os.path.dirname(run.__file__)
# Several processes of a module one after the other, each test with its own limit (run.py's).
TIMEOUT = 900

missing = modules.missing()
pytestmark = [pytest.mark.skipif(bool(missing), reason=str(missing)), pytest.mark.timeout(TIMEOUT)]

RUNS = [(module, "own") for module in modules.everything()]
# The loop must run the stock Task and Future as well: libraries build asyncio.Task themselves.
RUNS += [
    (module, "stock")
    for module in ("test_tasks", "test_futures", "test_eager_task_factory")
    if modules.find(module)
]


@pytest.fixture(autouse=True)
def patience():
    """pytest's own watchdog has one limit for all tests; here processes with limits are awaited."""
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def running(request):
    """What was selected, running: a future for each module, as many at a time as there are CPUs."""
    selected = [
        (item.callspec.params["module"], item.callspec.params["types"])
        for item in request.session.items
        if item.path == request.path and item.originalname == "test_stdlib_module"
    ]
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    yield {
        (module, types): pool.submit(run.run_module, module, types=types)
        for module, types in selected
    }
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(("module", "types"), RUNS, ids=lambda value: value)
def test_stdlib_module(module, types, running, suite_lines):
    result = running[module, types].result()
    verdict = run.judge(result, types=types)
    if not result.outcomes and module in modules.BESIDE:
        pytest.skip(f"{module} has nothing about asyncio in this version of Python")
    line = f"{run.summary(result, verdict)} [{types} types]"
    suite_lines.append(line)
    print(line)
    assert verdict.ok, f"{line}\n{run.details(verdict)}"
    assert result.outcomes, "no test ran"


def test_the_table_is_short():
    assert len(expected.EXPECTED) <= 15
    # Of tests, not of patterns that many match.
    assert not any(set(entry.pattern) & set("*?[") for entry in expected.EXPECTED)
    assert {entry.module for entry in expected.EXPECTED}.isdisjoint(modules.EXCLUDED)
    assert {entry.module for entry in expected.EXPECTED_APART} <= set(modules.APART)
    assert set(modules.APART) < set(modules.EXCLUDED)


def test_an_entry_whose_test_passes_is_a_failure(monkeypatch):
    version = sys.version_info[:2]
    entries = (
        expected.Entry("test_locks", "Tests.test_a*", (version,), "private"),
        expected.Entry("test_locks", "Tests.test_b", ((3, 9),), "of another version"),
        expected.Entry("test_locks", "Tests.test_c", (version,), "a race", may_pass=True),
    )
    monkeypatch.setattr(expected, "EXPECTED", entries)
    names = {
        name: f"test.test_asyncio.test_locks.Tests.{name}"
        for name in ("test_a1", "test_a2", "test_b", "test_c")
    }
    outcomes = {test_id: ("ok", "") for test_id in names.values()}
    outcomes[names["test_a1"]] = ("fail", "text")
    verdict = run.judge(run.ModuleRun("test_locks", outcomes))
    assert not verdict.ok
    assert verdict.expected == {"Tests.test_a1": "private"}
    assert [line.split()[0] for line in verdict.stale] == ["Tests.test_a2"]
    assert verdict.unexpected == {}


@pytest.mark.parametrize(
    ("outcome", "on_asyncio", "group"),
    [
        ("fail", "ok", "unexpected"),
        ("fail", "error", "machine"),
        ("hang", "hang", "unexpected"),
        ("crash", "crash", "unexpected"),
        ("skip", "ok", "unexpected"),
        ("skip", "skip", None),
        ("ok", "ok", None),
    ],
)
def test_what_asyncio_does_in_the_same_harness(outcome, on_asyncio, group, monkeypatch):
    test_id = "test.test_asyncio.test_locks.Tests.test_a"
    control = run.ModuleRun("test_locks", {test_id: (on_asyncio, "of the control")})
    monkeypatch.setattr(run, "run_module", lambda *args, **options: control)
    verdict = run.judge(run.ModuleRun("test_locks", {test_id: (outcome, "text")}), whole=False)
    groups = {"unexpected": verdict.unexpected, "machine": verdict.machine}
    assert [name for name, tests in groups.items() if tests] == ([group] if group else [])
    assert verdict.ok is (group != "unexpected")


def test_a_crash_is_not_what_the_table_expects(monkeypatch):
    entry = expected.Entry("test_locks", "Tests.test_a", (sys.version_info[:2],), "private")
    monkeypatch.setattr(expected, "EXPECTED", (entry,))
    monkeypatch.setattr(run, "run_module", lambda *args, **options: run.ModuleRun("test_locks"))
    for outcome, is_expected in (("fail", True), ("hang", True), ("crash", False)):
        outcomes = {"test.test_asyncio.test_locks.Tests.test_a": (outcome, "text")}
        verdict = run.judge(run.ModuleRun("test_locks", outcomes), whole=False)
        assert verdict.ok is is_expected, outcome
        assert bool(verdict.expected) is is_expected


def cases_about_asyncio(path):
    """The short names of a file's tests whose source names asyncio."""
    with open(path) as file:
        source = file.read()

    def find(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from find(child, f"{child.name}.")
            elif isinstance(child, ast.FunctionDef):
                text = ast.get_source_segment(source, child)
                if child.name.startswith("test") and "asyncio" in text:
                    yield prefix + child.name
            elif isinstance(child, ast.If):
                yield from find(child, prefix)

    return list(find(ast.parse(source), ""))


@pytest.mark.parametrize("module", modules.BESIDE)
def test_no_test_about_asyncio_is_left_out(module):
    if not modules.find(module):
        pytest.skip(f"this Python has no {module}")
    names = cases_about_asyncio(importlib.util.find_spec(modules.find(module)).origin)
    assert [name for name in names if not modules.is_chosen(module, name)] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test_locks", "-k", "nothing"], "no test ran"),
        (["test_no_such_module"], "start of the process"),
    ],
)
def test_a_run_without_tests_fails(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    assert run.main() == 1
    assert message in capsys.readouterr().out


@pytest.fixture
def worker_with(tmp_path, monkeypatch):
    """worker_with(text) has each worker process run this text as it starts."""

    def write(text):
        package = tmp_path / "overlay"
        package.mkdir()
        (package / "sitecustomize.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(package), prepend=os.pathsep)

    return write


def test_counts_tell_that_the_swap_is_real():
    result = run.run_module("test_locks")
    assert {name.partition(".")[0] for kind, name in result.made} == {"ouroloop"}
    for kind, name in (
        ("loops", "ouroloop.loop.Loop"),
        ("tasks", "ouroloop.Task"),
        ("futures", "ouroloop.Future"),
    ):
        assert result.made[kind, name] >= 40
    assert run.judge(result).ok


STOCK_LOOPS = ("made no loops of ours", "_UnixSelectorEventLoop instead of ours")
STOCK_TASKS = ("_asyncio.Task instead of ours",)
STOCK_FUTURES = ("_asyncio.Future instead of ours",)


@pytest.mark.parametrize(
    ("module", "undone", "lines"),
    [
        ("test_locks", ("install_loop",), STOCK_LOOPS),
        ("test_futures2", ("install_types",), STOCK_TASKS),
        (
            "test_locks",
            ("install_loop", "install_types"),
            STOCK_LOOPS + STOCK_TASKS + STOCK_FUTURES,
        ),
    ],
)
def test_a_swap_undone_is_a_failure(module, undone, lines, worker_with):
    names = "".join(f"swap.Swap.{name} = lambda self: None\n" for name in undone)
    worker_with(f"import sys; sys.path.insert(0, {HERE!r}); import swap\n{names}")
    result = run.run_module(module)
    assert not result.count(*run.FAILED)
    verdict = run.judge(result)
    assert not verdict.ok
    for line in lines:
        assert any(line in made for made in verdict.made), (line, verdict.made)


@pytest.mark.parametrize(
    ("kind", "made", "module", "wrong"),
    [
        ("futures", "asyncio.futures._PyFuture(loop=loop)", "test_locks", True),
        ("futures", "asyncio.futures._PyFuture(loop=loop)", "test_futures", False),
        ("futures", "type('F', (StockFuture,), {})(loop=loop)", "test_futures", True),
        ("tasks", "asyncio.tasks._PyTask(asyncio.sleep(0), loop=loop)", "test_locks", True),
        ("tasks", "type('T', (StockTask,), {})(asyncio.sleep(0), loop=loop)", "test_tasks", True),
        ("loops", "asyncio.unix_events._UnixSelectorEventLoop()", "test_tasks", True),
        ("loops", "type('L', (stock_loop,), {})()", "test_tasks", True),
        ("loops", "asyncio.base_events.BaseEventLoop()", "test_locks", True),
        ("loops", "asyncio.base_events.BaseEventLoop()", "test_tasks", False),
    ],
)
def test_what_is_not_ours_is_found(kind, made, module, wrong, run_python):
    script = f"""
import asyncio, sys
sys.path.insert(0, {HERE!r})
import swap, json
from swap import StockFuture, StockTask
stock_loop = asyncio.SelectorEventLoop
swapped = swap.Swap("ouroloop", "own")
swapped.install()
loop = asyncio.new_event_loop()
kept = {made}
if {kind!r} == "tasks":
    loop.run_until_complete(kept)
elif {kind!r} == "loops":
    kept.close()
print(json.dumps([[*key, count] for key, count in swapped.made.counts.items()]))
loop.close()
"""
    counts = json.loads(run_python(["-c", script]).stdout)
    # Beside it, one loop and one task of ours.
    result = run.ModuleRun(module, {"a test": ("ok", "")})
    result.made.update({(kind, name): count for kind, name, count in counts})
    result.made["tasks", "ouroloop.Task"] += 1
    result.made["loops", "ouroloop.loop.Loop"] += 1
    lines = [line for line in run.judge(result).made if "instead of ours" in line]
    assert len(lines) == (1 if wrong else 0), result.made


def test_programs_that_tests_start_are_swapped_and_counted(tmp_path, monkeypatch, run_python):
    for name in (swap.VARIABLE, "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    counts = tmp_path / "counts"
    counts.touch()
    swap.Swap("ouroloop", "own").install_in_children(str(counts))
    run_python(["-c", "import asyncio; asyncio.run(asyncio.sleep(0.001))"], env=os.environ)
    assert set(counts.read_text().split()) == {
        *("loops", "ouroloop.loop.Loop"),
        *("futures", "ouroloop.Future"),
    }
    run_python(["-c", "import asyncio; asyncio.unix_events._UnixSelectorEventLoop().close()"])
    result = run.ModuleRun("test_external_inspection", {"a test": ("ok", "")})
    made = counting.Made()
    made.read(counts)
    result.made.update(made.counts)
    assert (
        "made 1 asyncio.unix_events._UnixSelectorEventLoop instead of ours"
        in run.judge(result).made
    )


KINDS = {
    "cpython": "| 3.9.1 | 2 | 18 | 10 | 2 | 2 | 4 |\n| 3.10.1 | 2 | 18 | 10 | 2 | 2 | 4 |\n",
    "plugin": "| 3.9 | 9 | 5 | 1 | 3 |\n| 3.10 | 9 | 5 | 1 | 3 |\n",
    "fuzz": "| 3.9 | 7 | 3 |\n| 3.10 | 7 | 3 |\n",
}


def test_the_counts_go_between_their_marks(tmp_path, capsys, monkeypatch):
    count = {
        "run": 9,
        "passed": 5,
        "skipped": 1,
        "excepted": 1,
        "failed": 1,
        "failed on asyncio": 1,
    }
    suite = '<testsuite tests="9" errors="1" failures="2" skipped="1"/>'
    for version in ("3.9", "3.10"):
        with open(tmp_path / f"{version}.cpython.json", "w") as file:
            modules = {"test_a": count, "test_b": count}
            json.dump({"python": f"{version}.1", "modules": modules}, file)
        with open(tmp_path / f"{version}.fuzz.json", "w") as file:
            json.dump({"python": version, "programs": 7, "differences": 3}, file)
        (tmp_path / f"{version}.plugin.xml").write_text(f"<testsuites>{suite}</testsuites>")
    document = tmp_path / "document.md"
    parts = {name: f"<!-- {name}: begin -->\nold\n<!-- {name}: end -->" for name in KINDS}
    document.write_text("\n".join(["head", *parts.values(), "other text\n"]))
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path), str(document)])
    report.main()
    out, text = capsys.readouterr().out, document.read_text()
    for rows in KINDS.values():
        assert rows in out
        assert rows in text
    assert text.startswith("head\n<!-- cpython: begin -->\n| Python")
    assert "old" not in text
    assert all(f"`{entry.pattern}`" in text for entry in expected.EXPECTED)
    assert text.endswith("<!-- fuzz: end -->\nother text\n")
    document.write_text("nothing")
    with pytest.raises(SystemExit, match="exactly one"):
        report.main()


def test_a_hang_and_a_crash_are_failures_of_their_test(worker_with):
    """The harness itself: the tests after a hang and a crash still run, in new processes."""
    worker_with(OVERLAY)
    result = run.run_module("test_ouroloop_harness", loop="asyncio", limit=1.0)
    outcomes = {name.rpartition(".")[2]: outcome for name, (outcome, _) in result.outcomes.items()}
    assert outcomes == {
        "test_1_passes": "ok",
        "test_2_hangs": "hang",
        "test_3_crashes": "crash",
        "test_4_fails": "fail",
        "test_5_passes": "ok",
    }
    assert result.processes == 3


OVERLAY = """
import sys, types, unittest, os, signal, time
name = "test.test_asyncio.test_ouroloop_harness"
module = types.ModuleType(name)
module.__spec__ = types.SimpleNamespace(name=name)
class T(unittest.TestCase):
    def test_1_passes(self): pass
    def test_2_hangs(self): time.sleep(60)
    def test_3_crashes(self): os.kill(os.getpid(), signal.SIGSEGV)
    def test_4_fails(self): self.fail()
    def test_5_passes(self): pass
T.__module__ = name
T.__qualname__ = "T"
module.T = T
sys.modules[name] = module
"""
