"""csrc/error.c: libuv's errors, and exceptions without a Python caller."""

import errno
import os

import ouroloop
import pytest


def test_libuv_errors_are_oserrors_of_python(loop):
    read, write = os.pipe()
    os.close(write)
    os.close(read)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
        loop.add_reader(read, print)
    assert caught.value.errno == errno.EBADF
    with open(__file__, "rb") as regular, pytest.raises(PermissionError) as caught:
        loop.add_reader(regular, print)
    assert caught.value.errno == errno.EPERM


def test_too_many_open_files_is_an_error_not_a_crash():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    made = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, hard))
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)) as caught:  # noqa: PT012 - which one fails is open
            for _ in range(100):
                made.append(ouroloop.new_event_loop())
        assert caught.value.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for loop in made:
            loop.close()


def test_failing_exception_handler_does_not_stop_the_loop(loop, reports, caplog):
    def handler(loop, context):
        raise ValueError("in the handler")

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert "Unhandled error in exception handler" in caplog.text
    assert reports == []


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_fatal_exception_of_the_exception_handler_leaves(loop, exception):
    def handler(loop, context):
        raise exception

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    with pytest.raises(exception):
        loop.run_forever()
