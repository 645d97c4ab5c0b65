"""PostgreSQL through psycopg: queries, pipelines, COPY, notifications, cancellation.

The usual variables say where the server is: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGSSLMODE, ...
"""

import asyncio
import os

import psycopg


async def table(connection):
    async with connection.cursor() as cursor:
        await cursor.execute("DROP TABLE IF EXISTS river")
        await cursor.execute("CREATE TABLE river (id int PRIMARY KEY, name text)")
        async with cursor.copy("COPY river FROM STDIN") as copy:
            for n in range(5000):
                await copy.write_row((n, f"river {n}" * (n % 7)))
        await cursor.execute("SELECT count(*), sum(length(name)) FROM river WHERE id > %s", (9,))
        print(await cursor.fetchone())
        size = 0
        async with cursor.copy("COPY river TO STDOUT (FORMAT csv)") as copy:
            async for piece in copy:
                size += len(piece)
        print("csv:", size)
    await connection.commit()


async def transactions(connection):
    try:
        async with connection.transaction():
            await connection.execute("DELETE FROM river")
            await connection.execute("INSERT INTO river VALUES (1), (1)")
    except psycopg.errors.UniqueViolation as error:
        print(type(error).__name__, error)
    async with connection.transaction(), connection.cursor("on_the_server") as cursor:
        await cursor.execute("SELECT id FROM river")
        print("after the rollback:", sum([row[0] async for row in cursor]))


async def pipeline(connection):
    async with connection.pipeline():
        cursors = [await connection.execute("SELECT %s::int * 2", (n,)) for n in range(300)]
        print(sum([(await cursor.fetchone())[0] for cursor in cursors]))
    await connection.commit()


async def cancel(connection):
    query = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
    await asyncio.sleep(0.05)
    query.cancel()
    await asyncio.wait([query])
    await connection.rollback()
    cursor = await connection.execute("SELECT 'still usable'")
    print("cancelled:", query.cancelled(), await cursor.fetchone())
    await connection.rollback()


async def notifications():
    listener = await psycopg.AsyncConnection.connect(autocommit=True)
    sender = await psycopg.AsyncConnection.connect(autocommit=True)
    await listener.execute("LISTEN news")
    for n in range(3):
        await sender.execute("SELECT pg_notify('news', %s)", (f"number {n}",))
    async for event in listener.notifies(timeout=10, stop_after=3):
        print(event.channel, event.payload)
    print([event async for event in listener.notifies(timeout=0.05)])
    await listener.close()
    await sender.close()


async def many():
    async def square(n):
        async with await psycopg.AsyncConnection.connect() as connection:
            cursor = await connection.execute("SELECT %s::int * %s::int", (n, n))
            return (await cursor.fetchone())[0]

    print(sum(await asyncio.gather(*(square(n) for n in range(40)))))


async def main():
    ways = {
        "TLS": {},
        "TCP": {"sslmode": "disable"},
        "Unix socket": {"host": os.environ["POSTGRESQL_SOCKET_DIRECTORY"], "sslmode": "disable"},
    }
    for name, options in ways.items():
        connection = await psycopg.AsyncConnection.connect(**options)
        print(f"{name}: encrypted {connection.pgconn.ssl_in_use}")
        for part in (table, transactions, pipeline, cancel):
            await part(connection)
        await connection.close()
    await notifications()
    await many()
    try:
        await psycopg.AsyncConnection.connect(password="wrong")
    except psycopg.OperationalError as error:
        print("password authentication failed" in str(error))


asyncio.run(main())
