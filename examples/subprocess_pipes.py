"""Subprocesses: output, input, exit codes, a signal, and lines as they come."""

import asyncio
import sys

CHILD = "import sys; print(sys.stdin.read().upper(), end=''); print('err', file=sys.stderr)"
LINES = "import time\nfor n in range(3): print('line', n, flush=True); time.sleep(0.02)"


async def python(code, **options):
    return await asyncio.create_subprocess_exec(sys.executable, "-c", code, **options)


async def main():
    pipe = asyncio.subprocess.PIPE
    process = await python(CHILD, stdin=pipe, stdout=pipe, stderr=pipe)
    print(await process.communicate(b"hello\n"), process.returncode)

    process = await python(LINES, stdout=pipe)
    async for line in process.stdout:
        print("got", line)
    print("exit code:", await process.wait())

    processes = [await python(f"raise SystemExit({n})") for n in (3, 0, 7)]
    print("exit codes:", [await process.wait() for process in processes])

    process = await python("import time; time.sleep(30)")
    process.terminate()
    print("terminated:", await process.wait())

    process = await asyncio.create_subprocess_shell("echo shell && exit 4", stdout=pipe)
    print(await process.communicate(), process.returncode)
    try:
        await asyncio.create_subprocess_exec("/no/such/program")
    except FileNotFoundError as error:
        print("FileNotFoundError:", error.filename)


asyncio.run(main())
