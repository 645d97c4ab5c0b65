"""Several threads, each with a loop of its own, and loops that talk to each other."""

import asyncio
import sys
import threading

import ouroloop


def in_threads(count, function):
    failures = []

    def run(n):
        try:
            function(n)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread hangs"
    if failures:
        raise failures[0]


def own_loops():
    async def child(n):
        await asyncio.sleep(n / 1000)
        return n

    async def main(n):
        total = 0
        for _ in range(20):
            total += sum(await asyncio.gather(*(child(n) for n in range(10))))
        return total

    def thread(n):
        assert ouroloop.run(main(n)) == 900

    in_threads(6, thread)


def subprocesses():
    async def main(n):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", f"print({n})", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert out == f"{n}\n".encode(), out
        assert process.returncode == 0

    in_threads(4, lambda n: ouroloop.run(main(n)))


def call_soon_threadsafe():
    """Nothing is lost and each thread's calls stay in order."""
    loop = ouroloop.new_event_loop()
    got = []
    running = 4

    def done():
        nonlocal running
        running -= 1
        if not running:
            loop.stop()

    def producer(n):
        for k in range(2000):
            loop.call_soon_threadsafe(got.append, (n, k))
        loop.call_soon_threadsafe(done)

    threads = [threading.Thread(target=producer, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    loop.run_forever()
    for thread in threads:
        thread.join()
    loop.close()
    assert len(got) == 8000, len(got)
    for n in range(4):
        assert [k for who, k in got if who == n] == list(range(2000))


def wakes_an_idle_loop():
    """A loop with nothing to do is woken each time."""
    loop = ouroloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    for n in range(200):
        future = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, n), loop)
        assert future.result(10) == n
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    assert not thread.is_alive()
    loop.close()


def from_loop_to_loop():
    other = ouroloop.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()

    async def main():
        for n in range(200):
            future = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, n), other)
            assert await asyncio.wrap_future(future) == n

    ouroloop.run(main())
    other.call_soon_threadsafe(other.stop)
    thread.join(10)
    other.close()


def closing_while_others_call():
    """A producer that comes too late gets RuntimeError, nothing worse."""
    for _ in range(30):
        loop = ouroloop.new_event_loop()
        outcome = []

        def producer(loop=loop, outcome=outcome):
            try:
                while True:
                    loop.call_soon_threadsafe(int)
            except RuntimeError as error:
                outcome.append(str(error))

        thread = threading.Thread(target=producer)
        thread.start()
        loop.run_until_complete(asyncio.sleep(0.002))
        loop.close()
        thread.join(10)
        assert outcome == ["Event loop is closed"], outcome


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
