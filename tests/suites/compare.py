"""What two runs of one suite differ in: a run is a dictionary from test to outcome."""

import dataclasses

# Outcomes, worst last: a test has several phases and perhaps subtests. One that was begun
# and never reported on ended the process.
OUTCOMES = ("passed", "skipped", "crashed", "failed")


def outcomes(entries):
    """What became of each test, of the lines that suite_record wrote."""
    found, done = {}, set()
    for entry in entries:
        test, outcome = entry.get("test"), entry.get("outcome")
        if test is None:
            continue
        if outcome == "started":
            found.setdefault(test, "crashed")
        elif test not in done:
            done.add(test)
            found[test] = outcome
        else:
            found[test] = max(found[test], outcome, key=OUTCOMES.index)
    return found


def worse(stock, ours):
    """The tests that pass on stock asyncio and do not on ouroloop, or were not run there."""
    return [test for test, was in stock.items() if was == "passed" and ours.get(test) != "passed"]


def failed(run):
    return {test for test, outcome in run.items() if outcome in ("failed", "crashed")}


@dataclasses.dataclass
class Verdict:
    """What running one test again, N times on either loop, said of it."""

    test: str
    runs: int
    stock_passed: int
    ours_passed: int
    # With the other tests of its file: whether it passes there.
    stock_in_file: bool = True
    ours_in_file: bool = True

    def flaky(self):
        """Whether the loop is not to blame: it passes here each time, or fails on stock too."""
        if self.ours_in_file < self.stock_in_file:
            return False
        return self.ours_passed == self.runs or self.stock_passed < self.runs

    def __str__(self):
        return (
            f"{self.test}: alone it passes {self.stock_passed} of {self.runs} times on asyncio, "
            f"{self.ours_passed} of {self.runs} on ouroloop; in its file "
            f"{'yes' if self.stock_in_file else 'no'}, {'yes' if self.ours_in_file else 'no'}"
        )


@dataclasses.dataclass
class Counts:
    """The row of a table."""

    run: int
    passed: int
    skipped: int
    failed_on_both: int
    flaky: int
    only_here: int


def count(stock, ours, flaky, only_here):
    return Counts(
        run=len(ours),
        passed=sum(outcome == "passed" for outcome in ours.values()),
        skipped=sum(outcome == "skipped" for outcome in ours.values()),
        failed_on_both=len(failed(stock) & failed(ours) - {*flaky, *only_here}),
        flaky=len(flaky),
        only_here=len(only_here),
    )
