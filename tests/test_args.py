"""csrc/args.c: the keyword arguments of C methods, seen from Python."""

import asyncio
import socket

import pytest


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.setblocking(False)
    yield left, right
    left.close()
    right.close()


def test_positional_and_keyword_arguments_mean_the_same(loop, pair):
    async def main():
        waiter = loop.create_future()
        transport = loop._make_socket_transport(
            protocol=asyncio.Protocol(), sock=pair[0], waiter=waiter, extra={"key": 1}
        )
        await waiter
        assert transport.get_extra_info("key") == 1
        transport.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"missing required argument: 'sock'"),
        ((1,), {}, r"missing required argument: 'protocol'"),
        ((1, 2), {"sock": 3}, r"got multiple values for argument 'sock'"),
        ((1, 2), {"nothing": 3}, r"got an unexpected keyword argument 'nothing'"),
        ((1, 2, 3, 4), {}, r"takes at most 3 positional arguments \(4 given\)"),
    ],
)
def test_wrong_arguments(loop, args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        loop._make_socket_transport(*args, **kwargs)


def test_a_name_that_is_not_interned_is_found(loop, pair):
    async def main():
        name = "".join(["ext", "ra"])
        waiter = loop.create_future()
        transport = loop._make_socket_transport(
            pair[0], asyncio.Protocol(), waiter, **{name: {"key": 2}}
        )
        await waiter
        assert transport.get_extra_info("key") == 2
        transport.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
