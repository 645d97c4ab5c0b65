"""Which modules of the interpreter's own tests run on ouroloop, where they are, and how much."""

import fnmatch
import importlib.util
import os
import sys

# About the stdlib's own loop classes, which they mock, or about another operating system.
EXCLUDED = (
    "test_base_events",
    "test_proactor_events",
    "test_selector_events",
    "test_windows_events",
    "test_windows_utils",
)
# Of these, what runs nevertheless, as far as it goes, and counts for nothing.
APART = ("test_base_events",)

# Beside test.test_asyncio: module and patterns over "Class.test" of what is about asyncio.
BESIDE = {
    "test_async_case": ("*",),
    "test_contextlib_async": ("*",),
    "test_asyncgen": ("*",),
    "test_coroutines": ("*",),
    "test_logging": ("*askName*",),
    "test_pdb": ("*corout*", "*async*", "*await*"),
    "test_external_inspection": (
        "*async*",
        "*await*",
        "*corout*",
        "*task_name*",
        "TestSelfStackTrace.*",
    ),
}
if sys.version_info >= (3, 12):
    # A record has its task's name only since then.
    BESIDE["test_logging"] += ("LogRecordTest.test_optional",)
PACKAGES = ("test.test_asyncio", "test.test_unittest", "unittest.test", "test")

# Their tests start programs with loops of their own.
WITH_CHILDREN = ("test_events", "test_pdb", "test_external_inspection")

# They test asyncio's Future and Task in Python, beside those in C that ours replace.
WITH_PYTHON_TYPES = (
    "test_eager_task_factory",
    "test_events",
    "test_free_threading",
    "test_futures",
    "test_futures2",
    "test_graph",
    "test_tasks",
)
# They build some loops on asyncio's base classes, mostly one with a clock that a test sets.
WITH_TEST_LOOPS = (
    "test_base_events",
    "test_futures",
    "test_queues",
    "test_subprocess",
    "test_tasks",
    "test_unix_events",
)

# These first, so that no other process waits for the end of one of them.
LONGEST = (
    "test_tasks",
    "test_subprocess",
    "test_ssl",
    "test_taskgroups",
    "test_events",
    "test_eager_task_factory",
)


def find(module):
    """The full name of a module, "" if this interpreter does not have it."""
    packages = PACKAGES[1:] if module in BESIDE else PACKAGES[:1]
    for package in packages:
        name = f"{package}.{module}"
        try:
            if importlib.util.find_spec(name) is not None:
                return name
        except ModuleNotFoundError:
            pass
    return ""


def short(module, test_id):
    """`test.test_asyncio.test_x.Class.test_y` -> `Class.test_y`."""
    return test_id.removeprefix(f"{find(module)}.")


def is_chosen(module, name):
    """Is the test with this short name one of those that are to run?"""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in BESIDE.get(module, ("*",)))


def missing():
    """Why the suite cannot run here, or None."""
    if not find("test_tasks"):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        package = f"libpython{version}-testsuite"
        return f"this Python has no test.test_asyncio (on Debian: apt-get install {package})"
    return None


def everything():
    """Every module that is to run on this interpreter; the longest first."""
    if missing():
        return []
    package = importlib.util.find_spec("test.test_asyncio").submodule_search_locations[0]
    names = {
        file.removesuffix(".py")
        for file in os.listdir(package)
        if file.startswith("test_") and file.endswith(".py")
    }
    names -= set(EXCLUDED) - set(APART)
    names |= {module for module in BESIDE if find(module)}
    return [name for name in LONGEST if name in names] + sorted(names - set(LONGEST))
