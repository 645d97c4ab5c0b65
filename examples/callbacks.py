"""call_soon, call_soon_threadsafe, call_later and call_at."""

import asyncio
import threading


async def main():
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    now = loop.time()
    loop.call_at(now + 0.3, done.set_result, "the end")
    loop.call_later(0.2, print, "later: 0.2")
    loop.call_at(now + 0.1, print, "at: 0.1")
    loop.call_soon(print, "soon: 1")
    loop.call_soon(print, "soon: 2")
    soon = loop.call_soon(print, "never: cancelled")
    timer = loop.call_later(0.15, print, "never: cancelled timer")
    for handle in (soon, timer):
        handle.cancel()
        print(type(handle).__name__, "cancelled:", handle.cancelled())
    print("in its place:", now + 0.14 < timer.when() < now + 1)
    print("equal times keep no order, different ones do:", timer < loop.call_later(9, print))

    def from_thread():
        loop.call_soon_threadsafe(print, "from a thread")

    thread = threading.Thread(target=from_thread)
    thread.start()
    thread.join()
    await asyncio.sleep(0)
    print("after one pass")
    print(await done)
    try:
        loop.call_later(None, print)
    except TypeError as error:
        print("TypeError:", error)


asyncio.run(main())
