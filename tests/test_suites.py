"""`./dev suites`: the comparison finds what is worse on ouroloop, and only that."""

import dataclasses
import subprocess
import sys

import pytest
from suites import compare, namespace, runner, table
from suites.projects import PROJECTS

SUITE = """
import asyncio, unittest

def ours():
    loop = asyncio.new_event_loop()
    loop.close()
    return any(base.__module__ == "ouroloop.loop" for base in type(loop).__mro__)

def test_same():
    asyncio.run(asyncio.sleep(0))

def test_the_class_that_is_the_default():
    class Loop(asyncio.SelectorEventLoop):
        pass
    async def check():
        assert isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
        assert not isinstance(asyncio.get_running_loop(), Loop)
    asyncio.run(check())
    loop = Loop()
    assert isinstance(loop, Loop) and isinstance(loop, asyncio.SelectorEventLoop)
    loop.close()

def test_skipped():
    raise unittest.SkipTest("as everywhere")

def test_fails_on_both():
    assert False

def test_worse_here():
    assert not ours(), "a difference"

def test_better_here():
    assert ours()

def test_flaky():
    # Fails when it runs for the second time, which is on ouroloop.
    with open("count", "a+") as file:
        file.write("x")
        file.seek(0)
        assert len(file.read()) != 2
"""
ONE_TEST = """
import asyncio

def test_loop():
    asyncio.run(asyncio.sleep(0))
"""
# So that its processes start quickly.
PLUGINS = ("aiohttp", "anyio", "asyncio", "hypothesispytest", "xdist", "xdist.looponfail")


class LocalSuite(runner.Suite):
    """A suite in a directory of ours, run by the interpreter of these tests."""

    def __init__(self, directory, text):
        (directory / "tests").mkdir()
        (directory / "tests" / "test_it.py").write_text(text)
        (directory / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
        options = [option for plugin in PLUGINS for option in ("-p", f"no:{plugin}")]
        self.project = dataclasses.replace(PROJECTS["uvicorn"], options=tuple(options))
        self.python = sys.executable
        self.home = self.directory = str(directory)
        self.hosts = str(directory / "hosts")
        namespace.write_hosts(self.hosts)


def test_a_suite_is_compared(tmp_path, capsys):
    counts, loops, problems = runner.compare(LocalSuite(tmp_path, SUITE), runs=1)
    assert counts == compare.Counts(
        run=7, passed=3, skipped=1, failed_on_both=1, flaky=1, only_here=1
    )
    assert set(loops) == {"ouroloop"}
    assert problems[0] == "tests/test_it.py::test_worse_here: failed on ouroloop only"
    assert any("a difference" in line for line in problems)
    said = capsys.readouterr().out
    assert "DIFFERENT: tests/test_it.py::test_worse_here: alone" in said
    assert "flaky: tests/test_it.py::test_flaky: alone" in said


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import asyncio, os\ndef test_end():\n    os._exit(1)", "did not come to the end"),
        (f"{ONE_TEST}def test_end():\n    raise KeyboardInterrupt", "did not come to the end"),
        ("def test_nothing():\n    pass", "were not all its own"),
        (
            f"import asyncio.unix_events\n{ONE_TEST}"
            "def test_stock():\n    asyncio.unix_events.SelectorEventLoop().close()",
            "were not all its own",
        ),
        ("def broken(:", "no test passed on stock asyncio"),
    ],
    ids=["crash", "interrupt", "no-loop", "stock-loop", "syntax"],
)
def test_a_run_that_proves_nothing_is_a_problem(tmp_path, text, problem):
    _, _, problems = runner.compare(LocalSuite(tmp_path, text), runs=1)
    assert any(problem in line for line in problems), problems


def test_outcomes():
    """Of several phases the worst counts; a test without a report ended the process."""
    entries = [
        {"test": "passes", "outcome": "started"},
        {"test": "passes", "outcome": "passed"},
        {"test": "teardown", "outcome": "started"},
        {"test": "teardown", "outcome": "passed"},
        {"test": "teardown", "outcome": "failed"},
        {"test": "subtest", "outcome": "started"},
        {"test": "subtest", "outcome": "failed"},
        {"test": "subtest", "outcome": "passed"},
        {"test": "end", "outcome": "started"},
        {"loops": {}},
    ]
    assert compare.outcomes(entries) == {
        "passes": "passed",
        "teardown": "failed",
        "subtest": "failed",
        "end": "crashed",
    }


@pytest.mark.parametrize("outcome", ["failed", "skipped", "crashed", None])
def test_worse(outcome):
    ours = {"same": "passed"} | ({"test": outcome} if outcome else {})
    stock = {"same": "passed", "test": "passed"}
    assert compare.worse(stock, ours) == ["test"]
    assert compare.worse(ours, stock) == []


@pytest.mark.parametrize(
    ("stock", "ours", "stock_in_file", "ours_in_file", "flaky"),
    [
        (5, 5, True, True, True),
        (5, 4, True, True, False),
        (5, 0, True, True, False),
        (4, 4, True, True, True),
        (0, 0, False, False, True),
        (5, 5, True, False, False),
        (5, 5, False, False, True),
    ],
)
def test_flaky_is_what_passes_here_or_fails_on_stock(
    stock, ours, stock_in_file, ours_in_file, flaky
):
    verdict = compare.Verdict("test", 5, stock, ours, stock_in_file, ours_in_file)
    assert verdict.flaky() is flaky


def test_the_table_keeps_the_rows_of_others():
    text = f"before\n{table.BEGIN}\n{table.END}\nafter\n"
    for row in ("| b 1 | 3.11 | 5 |", "| a 1 | 3.11 | 1 |", "| a 1 | 3.9 | 2 |"):
        text = table.with_row(text, row)
    text = table.with_row(text, "| a 2 | 3.11 | 3 |")
    rows = ["| a 1 | 3.9 | 2 |", "| a 2 | 3.11 | 3 |", "| b 1 | 3.11 | 5 |"]
    made = table.HEAD + "".join(f"{row}\n" for row in rows)
    assert text == f"before\n{table.BEGIN}\n{made}{table.END}\nafter\n"


def test_the_document_has_its_place():
    with open(table.PATH) as file:
        text = file.read()
    assert "| x 1 | 3.11 | 5 |" in table.with_row(text, "| x 1 | 3.11 | 5 |")


def test_localhost_has_both_addresses(tmp_path):
    hosts = str(tmp_path / "hosts")
    namespace.write_hosts(hosts)
    prefix = namespace.enter(hosts, unprivileged=True)
    if "unshare" not in prefix:
        pytest.skip("this machine grants no namespaces")
    code = "import os; print(os.geteuid() != 0, open('/etc/hosts').read())"
    result = subprocess.run(
        [*prefix, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(f"True {namespace.HOSTS}")
