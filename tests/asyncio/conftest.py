"""Print what each module of the interpreter's suite did, whether or not the tests passed."""

import pytest

LINES = pytest.StashKey()


def pytest_configure(config):
    config.stash[LINES] = []


@pytest.fixture
def suite_lines(request):
    return request.config.stash[LINES]


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash.get(LINES, [])
    if lines:
        terminalreporter.section("test.test_asyncio on ouroloop")
        for line in lines:
            terminalreporter.write_line(line)
