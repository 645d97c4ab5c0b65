"""`python -m asyncio ps` and `pstree`, run on this process, see our tasks (3.14 and later)."""

import asyncio
import os
import subprocess
import sys

import ouroloop


async def leaf():
    await asyncio.sleep(60)


async def branch():
    await asyncio.gather(
        asyncio.create_task(leaf(), name="leaf one"), asyncio.create_task(leaf(), name="leaf two")
    )


def tool(command):
    done = subprocess.run(
        [sys.executable, "-m", "asyncio", command, str(os.getpid())],
        capture_output=True,
        text=True,
        timeout=30,
    )
    if "permission" in (done.stdout + done.stderr).lower():
        print("not permitted")
        sys.exit()
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def main():
    asyncio.current_task().set_name("the main task")
    task = asyncio.create_task(branch(), name="branch")
    await asyncio.sleep(0.01)
    loop = asyncio.get_running_loop()
    table = await loop.run_in_executor(None, tool, "ps")
    tree = await loop.run_in_executor(None, tool, "pstree")
    for name in ("branch", "leaf one", "leaf two"):
        assert name in table, table
        assert name in tree, tree
    for line in table.splitlines():
        if "leaf one" in line:
            assert "branch" in line, table
    task.cancel()
    await asyncio.wait([task])


ouroloop.run(main())
print("ok")
