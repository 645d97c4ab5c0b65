"""The ways to put ouroloop under asyncio: policy, install(), Runner, loop_factory, unittest."""

import asyncio
import sys
import threading
import unittest
import warnings

import ouroloop

if sys.version_info >= (3, 14):
    warnings.simplefilter("ignore", DeprecationWarning)


async def running_type():
    await asyncio.sleep(0)
    return type(asyncio.get_running_loop()), type(asyncio.current_task())


OURS = (ouroloop.Loop, ouroloop.Task)


def install():
    ouroloop.install()
    assert asyncio.run(running_type()) == OURS
    assert isinstance(asyncio.get_event_loop_policy(), ouroloop.EventLoopPolicy)
    loop = asyncio.new_event_loop()
    assert type(loop) is ouroloop.Loop
    loop.close()
    asyncio.set_event_loop_policy(None)
    assert asyncio.run(running_type())[0] is not ouroloop.Loop


def policy():
    asyncio.set_event_loop_policy(ouroloop.EventLoopPolicy())
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    assert asyncio.get_event_loop() is loop
    assert loop.run_until_complete(running_type()) == OURS
    loop.close()
    asyncio.set_event_loop(None)

    errors = []

    def thread():
        try:
            asyncio.get_event_loop_policy().get_event_loop()
        except RuntimeError as error:
            errors.append(str(error))

    other = threading.Thread(target=thread, name="other")
    other.start()
    other.join()
    assert errors == ["There is no current event loop in thread 'other'."], errors


def run():
    assert ouroloop.run(running_type()) == OURS
    # Before 3.12 asyncio.run has no loop_factory.
    if sys.version_info >= (3, 12):
        assert asyncio.run(running_type(), loop_factory=ouroloop.new_event_loop) == OURS
        assert asyncio.run(running_type(), loop_factory=ouroloop.Loop) == OURS
    if sys.version_info >= (3, 11):
        with asyncio.Runner(loop_factory=ouroloop.new_event_loop) as runner:
            assert runner.run(running_type()) == OURS
            assert runner.run(running_type()) == OURS

    async def debug():
        return asyncio.get_running_loop().get_debug()

    assert ouroloop.run(debug(), debug=True) is True
    assert ouroloop.run(debug(), debug=False) is False
    made = []

    def factory():
        made.append(ouroloop.new_event_loop())
        return made[-1]

    assert ouroloop.run(running_type(), loop_factory=factory) == OURS
    assert made[0].is_closed()


def run_wrong():
    for wrong in (running_type, None, 1):
        try:
            ouroloop.run(wrong)
        except (TypeError, ValueError):
            continue
        raise AssertionError(wrong)

    async def nested():
        coroutine = running_type()
        try:
            ouroloop.run(coroutine)
        except RuntimeError as error:
            return str(error)
        finally:
            coroutine.close()

    message = "asyncio.run() cannot be called from a running event loop"
    assert ouroloop.run(nested()) == message


def isolated_asyncio_test_case():
    ouroloop.install()
    seen = []

    class Test(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self):
            seen.append(await running_type())

        async def test(self):
            seen.append(await running_type())
            await asyncio.sleep(0.01)

    result = unittest.TestResult()
    Test("test").run(result)
    assert result.wasSuccessful(), result.errors
    assert seen == [OURS, OURS], seen


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
