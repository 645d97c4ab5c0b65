"""Generators underneath: send, yield from, and a generator-based coroutine run by the loop."""

import asyncio
import types


def averager():
    total = count = 0
    average = None
    while True:
        value = yield average
        if value is None:
            return total, count
        total += value
        count += 1
        average = total / count


def delegate(results):
    while True:
        results.append((yield from averager()))


results = []
generator = delegate(results)
print(next(generator))
for value in (10, 20, 30, None, 5, None):
    print("send", value, "->", generator.send(value))
print(results)


@types.coroutine
def pause(n):
    for step in range(n):
        print("pause", step)
        yield
    return (yield from asyncio.sleep(0, "from sleep").__await__())


async def ticker(name):
    for step in range(3):
        print(name, step)
        await asyncio.sleep(0)


async def main():
    print(await asyncio.gather(pause(3), ticker("ticker")))
    coroutine = ticker("by hand")
    print("a bare yield gives", coroutine.send(None))
    coroutine.close()


asyncio.run(main())
