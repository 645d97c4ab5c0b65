"""The tests of the interpreter's own suite that are expected to fail on ouroloop, and why.

The only reason there is: the test replaces or reads a private part of CPython's own loop that
another loop cannot have. A test of the table that does not fail is an error of the table.
"""

import dataclasses
import fnmatch
import sys

# Seconds for a test that is expected to fail: some do so by waiting for ever.
LIMIT = 3.0

ALL = ((3, 10), (3, 11), (3, 12), (3, 13), (3, 14), (3, 15))


@dataclasses.dataclass(frozen=True)
class Entry:
    """`pattern` is for `fnmatch` over "Class.test", `versions` the (major, minor) it is about."""

    module: str
    pattern: str
    versions: tuple
    reason: str
    # Does the test end early, and well, when it loses a race of its own?
    may_pass: bool = False


EXPECTED = (
    Entry(
        "test_events",
        "EventLoopTests.test_internal_fds",
        ALL,
        "counts the descriptors of the selector loop's self-pipe, which libuv's loop does not have",
    ),
    Entry(
        "test_ssl",
        "TestSSL.test_remote_shutdown_receives_trailing_data_on_slow_socket",
        ((3, 14), (3, 15)),
        "reads _read_ready_cb of the selector loop's transport and replaces its socket object",
        may_pass=True,
    ),
)

# The same for modules.APART. They mock the stdlib's own loop classes: nothing is promised.
EXPECTED_APART = (
    *(
        Entry(
            "test_base_events",
            f"BaseEventLoopWithSelectorTests.{test}",
            ALL,
            "puts a mock in place of the socket module, so that sockets and lookups are mocks",
        )
        for test in (
            "test_create_connection_bluetooth",
            "test_create_datagram_endpoint_no_addrinfo",
        )
    ),
    Entry(
        "test_base_events",
        "BaseEventLoopWithSelectorTests.test_log_slow_callbacks",
        ALL,
        "replaces the variable `logger` of base_events; ours goes to the same logger by its name",
    ),
)

# Modules whose tests make no loop, or no task, that could be ours: (kinds, versions).
MAKES_NO = {
    "test_contextlib_async": (("loops", "tasks"), ((3, 14), (3, 15))),
    "test_futures": (("loops",), ALL),  # the suite's loop with a clock of its own does
    "test_protocols": (("loops", "tasks"), ALL),
    "test_queues": (("loops",), ((3, 10),)),
    "test_tools": (("loops", "tasks"), ALL),
    "test_transports": (("loops", "tasks"), ALL),
}


def kinds_not_made(module):
    """The kinds of objects of ours, "loops" and "tasks", that the module does not make here."""
    kinds, versions = MAKES_NO.get(module, ((), ()))
    return kinds if sys.version_info[:2] in versions else ()


def entries(module):
    """The entries about this module on the running Python."""
    return [
        entry
        for entry in (*EXPECTED, *EXPECTED_APART)
        if entry.module == module and sys.version_info[:2] in entry.versions
    ]


def is_expected(module, test):
    """Is this test, "Class.test", expected to fail on the running Python?"""
    return any(fnmatch.fnmatchcase(test, entry.pattern) for entry in entries(module))
