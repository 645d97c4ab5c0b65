"""What a type checker makes of a program on ouroloop; `./dev lint` checks it, nobody runs it.

Each line that says "type: ignore" is a mistake that must be found: mypy --strict refuses an
ignore that is not needed.
"""

# ruff: noqa: F841 - what is assigned matters to the type checker only

import asyncio
from typing import Any

import ouroloop
from typing_extensions import assert_type


async def number() -> int:
    return 1


async def made_by_hand(loop: ouroloop.Loop) -> None:
    future: ouroloop.Future[int] = ouroloop.Future(loop=loop)
    task: ouroloop.Task[int] = ouroloop.Task(number(), loop=loop, name="name")
    future.set_result(1)
    future.set_result("1")  # type: ignore[arg-type]
    assert_type(ouroloop.Task(number()), ouroloop.Task[int])
    assert_type(ouroloop.Future[str](), ouroloop.Future[str])
    assert_type(future.result(), int)
    assert_type(task.result(), int)
    assert_type(await future, int)
    assert_type(await task, int)
    assert_type(await asyncio.gather(future, task), tuple[int, int])
    assert_type(await asyncio.wait_for(task, 1), int)
    assert_type(await asyncio.shield(future), int)
    text: str = await task  # type: ignore[assignment]
    ouroloop.Task(1)  # type: ignore[arg-type]
    ouroloop.Future[int, str]()  # type: ignore[misc]


def they_are_asyncios(future: ouroloop.Future[int], task: ouroloop.Task[int]) -> None:
    stock_future: asyncio.Future[int] = future
    stock_future = task
    stock_task: asyncio.Task[int] = task
    our_future: ouroloop.Future[int] = task
    our_task: ouroloop.Task[int] = stock_task  # type: ignore[assignment]
    other: asyncio.Future[str] = future  # type: ignore[assignment]


async def made_by_the_loop(ours: ouroloop.Loop, stock: asyncio.AbstractEventLoop) -> None:
    assert_type(ours.create_task(number()), asyncio.Task[int])
    assert_type(stock.create_task(number()), asyncio.Task[int])
    assert_type(ours.create_future(), asyncio.Future[Any])
    assert_type(stock.create_future(), asyncio.Future[Any])
    typed: asyncio.Future[int] = ours.create_future()
    assert_type(await typed, int)
    wrong: asyncio.Task[str] = ours.create_task(number())  # type: ignore[arg-type]
    ours.create_task(number)  # type: ignore[arg-type]
    assert_type(ours.call_soon(print, 1), asyncio.Handle)
    ours.call_soon(number_of, "1")  # type: ignore[arg-type]


def number_of(value: int) -> None:
    assert_type(ouroloop.run(number()), int)
    assert_type(ouroloop.new_event_loop(), ouroloop.Loop)
    assert_type(ouroloop.new_event_loop().run_until_complete(number()), int)
    loop: asyncio.AbstractEventLoop = ouroloop.Loop()
    ouroloop.run(number)  # type: ignore[arg-type]
