"""ouroloop in subinterpreters with a GIL of their own, one after the other and at the same time."""

import os
import sys
import textwrap
import threading

CODE = textwrap.dedent("""
    import asyncio
    import ouroloop

    async def add(n):
        await asyncio.sleep(0.001)
        return n

    async def main():
        loop = asyncio.get_running_loop()
        assert type(loop) is ouroloop.Loop
        assert type(asyncio.current_task()) is ouroloop.Task
        results = await asyncio.gather(*(add(n) for n in range(100)))
        assert results == list(range(100))
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\\n")
        assert await reader.readline() == b"hello\\n"
        writer.close()
        server.close()

    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    ouroloop.run(main())
""")


def run_in_new_interpreter():
    try:
        import _interpreters  # 3.13 and later
    except ImportError:
        import _xxsubinterpreters as _interpreters
    interpreter = _interpreters.create()
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    if hasattr(_interpreters, "exec"):
        error = _interpreters.exec(interpreter, path + CODE)
        assert error is None, error.formatted
    else:
        _interpreters.run_string(interpreter, path + CODE)
    _interpreters.destroy(interpreter)


def one():
    run_in_new_interpreter()


def in_a_row():
    for _ in range(3):
        run_in_new_interpreter()


def beside_the_main_one():
    import asyncio

    import ouroloop

    async def main():
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, run_in_new_interpreter)
        return await asyncio.sleep(0.01, "main")

    assert ouroloop.run(main()) == "main"
    exec(CODE, {"__name__": "main"})


def in_threads():
    failures = []

    def run():
        try:
            run_in_new_interpreter()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok", flush=True)
    if sys.version_info < (3, 13):
        # 3.12 itself may crash while it ends after `import asyncio` in a subinterpreter.
        os._exit(0)
