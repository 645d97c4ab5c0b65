"""get_running_loop, get_event_loop, set_event_loop and new_event_loop."""

import asyncio


async def inside(expected):
    print("running loop:", asyncio.get_running_loop() is expected)
    print("get_event_loop inside:", asyncio.get_event_loop() is expected)


try:
    asyncio.get_running_loop()
except RuntimeError as error:
    print("RuntimeError:", error)

first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
print("two loops:", first is not second, isinstance(first, asyncio.AbstractEventLoop))
asyncio.set_event_loop(first)
print("get_event_loop outside:", asyncio.get_event_loop() is first)
first.run_until_complete(inside(first))
second.run_until_complete(inside(second))
print("still the one that was set:", asyncio.get_event_loop() is first)
asyncio.set_event_loop(second)
print("now the other:", asyncio.get_event_loop() is second)
asyncio.set_event_loop(None)
for loop in (first, second):
    loop.close()
    print("closed:", loop.is_closed(), "running:", loop.is_running())
coroutine = inside(first)
try:
    first.run_until_complete(coroutine)
except RuntimeError as error:
    print("RuntimeError:", error)
coroutine.close()
