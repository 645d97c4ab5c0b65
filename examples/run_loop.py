"""run_until_complete, run_forever and stop."""

import asyncio


async def work(n):
    await asyncio.sleep(0.01)
    return n


async def stop_later(loop):
    await asyncio.sleep(0.05)
    print("stopping")
    loop.stop()
    print("the callbacks of this pass still run")


loop = asyncio.new_event_loop()
print("until complete:", loop.run_until_complete(work(1)))
print("a future:", loop.run_until_complete(asyncio.ensure_future(work(2), loop=loop)))

task = loop.create_task(stop_later(loop))
loop.run_forever()
print("run_forever is over:", loop.is_running(), task.done())

loop.call_soon(print, "before stop")
loop.call_soon(loop.stop)
loop.call_soon(print, "after stop, the same pass")
loop.run_forever()

loop.stop()
loop.call_soon(print, "stop first: one pass")
loop.run_forever()

unfinished = loop.create_task(work(3))
loop.call_soon(loop.stop)
try:
    loop.run_until_complete(unfinished)
except RuntimeError as error:
    print("RuntimeError:", error)
print("later:", loop.run_until_complete(unfinished))
loop.close()
