"""The tests of the interpreter's own asyncio suite that are expected to fail on ouroloop.

Only tests that replace or inspect private parts of CPython's own loop belong here, each with its
reason. An entry is `(module, test, versions, reason)`: `test` is a pattern for `fnmatch` over
"Class.test", `versions` the (major, minor) pairs it is about, or ALL. A test named here that does
not fail is an error of this table, and so is a pattern that matches no test.
"""

ALL = ((3, 10), (3, 11), (3, 12), (3, 13), (3, 14), (3, 15))

EXPECTED = (
    (
        "test_events",
        "EventLoopTests.test_internal_fds",
        ALL,
        "counts the descriptors of the selector loop's self-pipe, which libuv's loop does not have",
    ),
)
