"""The tests of the interpreter's own asyncio suite that are expected to fail on ouroloop.

Only tests that replace or inspect private parts of CPython's own loop belong here, each with its
reason. An entry is `(module, test, versions, reason)`: `test` is a pattern for `fnmatch` over
"Class.test", `versions` the (major, minor) pairs it is about, or ALL. A test named here that does
not fail is an error of this table, unless MAY_PASS names it too.
"""

import fnmatch
import sys

# Seconds for a test that is expected to fail: some do so by waiting for ever.
LIMIT = 3.0

ALL = ((3, 10), (3, 11), (3, 12), (3, 13), (3, 14), (3, 15))

EXPECTED = (
    (
        "test_events",
        "EventLoopTests.test_internal_fds",
        ALL,
        "counts the descriptors of the selector loop's self-pipe, which libuv's loop does not have",
    ),
    (
        "test_base_events",
        "BaseEventLoopTests.test_set_task_factory",
        ALL,
        "makes its loop of base_events.BaseEventLoop alone, whose tasks are never ours",
    ),
    *(
        (
            "test_base_events",
            f"BaseEventLoopWithSelectorTests.{test}",
            ALL,
            "puts a mock in place of the socket module, so that sockets and lookups are mocks",
        )
        for test in (
            "test_create_connection_bluetooth",
            "test_create_connection_ip_addr",
            "test_create_connection_ipv6_scope",
            "test_create_connection_no_inet_pton",
            "test_create_connection_service_name",
            "test_create_datagram_endpoint_ip_addr",
            "test_create_datagram_endpoint_no_addrinfo",
            "test_create_server_soreuseport_only_defined",
        )
    ),
    *(
        (
            "test_base_events",
            f"BaseEventLoopTests.{test}",
            ((3, 15),),
            "puts mocks in place of the socket module and of its own loop's sock_connect",
        )
        for test in (
            "test_create_connection_happy_eyeballs",
            "test_create_connection_happy_eyeballs_ipv4_only",
        )
    ),
    (
        "test_base_events",
        "BaseEventLoopWithSelectorTests.test_log_slow_callbacks",
        ALL,
        "replaces the variable `logger` of base_events; ours goes to the same logger by its name",
    ),
    (
        "test_sslproto",
        "SslProtoHandshakeTests.test_connection_lost_when_busy",
        ((3, 13), (3, 14), (3, 15)),
        "gives a mock in place of a socket to the private _make_socket_transport",
    ),
    (
        "test_ssl",
        "TestSSL.test_remote_shutdown_receives_trailing_data_on_slow_socket",
        ((3, 14), (3, 15)),
        "reads _read_ready_cb of the selector loop's transport and replaces its socket object",
    ),
)

# Of these, tests that end early, and well, when they lose a race of their own.
MAY_PASS = {"TestSSL.test_remote_shutdown_receives_trailing_data_on_slow_socket"}


def find(module, test):
    """The reason why this test is expected to fail on the running Python, or None."""
    for listed, pattern, versions, reason in EXPECTED:
        if listed == module and sys.version_info[:2] in versions and fnmatch.fnmatch(test, pattern):
            return reason
    return None
