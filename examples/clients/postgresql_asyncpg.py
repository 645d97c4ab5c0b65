"""PostgreSQL through asyncpg: queries, transactions, COPY, notifications, time limits, a pool.

The usual variables say where the server is: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGSSLMODE, ...
"""

import asyncio
import io
import os

import asyncpg


async def table(connection):
    await connection.execute("DROP TABLE IF EXISTS planet")
    await connection.execute("CREATE TABLE planet (id int PRIMARY KEY, name text, moons int[])")
    records = [(n, f"planet {n}", list(range(n % 4))) for n in range(5000)]
    print(await connection.copy_records_to_table("planet", records=records))
    print(await connection.fetchval("SELECT count(*) FROM planet WHERE cardinality(moons) = 3"))
    print(*await connection.fetch("SELECT * FROM planet WHERE id < $1 ORDER BY id", 3))
    out = io.BytesIO()
    print(await connection.copy_from_query("SELECT * FROM planet", output=out, format="csv"))
    print("csv:", len(out.getvalue()), out.getvalue()[-24:])


async def transactions(connection):
    try:
        async with connection.transaction():
            await connection.execute("DELETE FROM planet")
            await connection.execute("INSERT INTO planet VALUES (1), (1)")
    except asyncpg.UniqueViolationError as error:
        print(type(error).__name__, error)
    async with connection.transaction():
        total = 0
        async for record in connection.cursor("SELECT id FROM planet", prefetch=100):
            total += record["id"]
        print("after the rollback:", total)


async def limits(connection):
    try:
        await connection.fetch("SELECT pg_sleep(60)", timeout=0.05)
    except asyncio.TimeoutError:
        print("too slow")
    query = asyncio.ensure_future(connection.fetch("SELECT pg_sleep(60)"))
    await asyncio.sleep(0.05)
    query.cancel()
    await asyncio.wait([query])
    print("cancelled:", query.cancelled(), await connection.fetchval("SELECT 'still usable'"))


async def notifications():
    listener, sender = await asyncpg.connect(), await asyncpg.connect()
    got = asyncio.Queue()
    await listener.add_listener("news", lambda *event: got.put_nowait(event[2:]))
    for n in range(3):
        await sender.execute("SELECT pg_notify('news', $1)", f"number {n}")
    print(*[await got.get() for _ in range(3)])
    await sender.close()
    # The server ends the session of the other one.
    ended = asyncio.Event()
    listener.add_termination_listener(lambda connection: ended.set())
    other = await asyncpg.connect()
    await other.execute("SELECT pg_terminate_backend($1)", listener.get_server_pid())
    await asyncio.wait_for(ended.wait(), 10)
    print("closed:", listener.is_closed())
    await other.close()


async def pool():
    async def square(pool, n):
        return await pool.fetchval("SELECT $1::int * $1::int", n)

    async with asyncpg.create_pool(min_size=2, max_size=8) as connections:
        print(sum(await asyncio.gather(*(square(connections, n) for n in range(500)))))
        print(len(await connections.fetchval("SELECT repeat('x', 20000000)")))


async def main():
    ways = {
        "TLS": {},
        "TCP": {"ssl": False},
        "Unix socket": {"host": os.environ["POSTGRESQL_SOCKET_DIRECTORY"]},
    }
    for name, options in ways.items():
        connection = await asyncpg.connect(**options)
        encrypted = await connection.fetchval(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        )
        print(f"{name}: encrypted {encrypted}")
        for part in (table, transactions, limits):
            await part(connection)
        await connection.close()
    await notifications()
    await pool()
    try:
        await asyncpg.connect(password="wrong")
    except asyncpg.InvalidPasswordError as error:
        print(error)


asyncio.run(main())
