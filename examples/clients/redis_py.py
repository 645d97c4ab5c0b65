"""Redis through redis-py: values, pipelines, publish and subscribe, blocking calls, streams.

REDIS_URL, REDIS_TLS_URL and REDIS_SOCKET say where the server is, SSL_CERT_FILE whom to trust
and CLIENT_CERT holds the client's own certificate.
"""

import asyncio
import os

import redis.asyncio as redis


async def values(client):
    await client.flushall()
    await client.set("greeting", "hello", ex=1000)
    print(await client.get("greeting"), await client.ttl("greeting") > 990)
    await client.hset("planet", mapping={"name": "Saturn", "moons": 146})
    print(await client.hgetall("planet"), await client.hincrby("planet", "moons", 3))
    big = os.urandom(1 << 20) * 8
    await client.set("big", big)
    print(await client.get("big") == big, await client.strlen("big"))
    await client.sadd("numbers", *range(2000))
    print(sum([int(number) async for number in client.sscan_iter("numbers")]))
    try:
        await client.incr("greeting")
    except redis.ResponseError as error:
        print(error)


async def pipelines(client):
    async with client.pipeline(transaction=True) as pipe:
        for n in range(1000):
            pipe.incrby("counter", n)
        print((await pipe.execute())[-1])
    async with client.pipeline() as pipe:
        await pipe.watch("counter")
        await client.set("counter", 1)
        pipe.multi()
        pipe.incr("counter")
        try:
            await pipe.execute()
        except redis.WatchError as error:
            print(type(error).__name__, await client.get("counter"))
    print(await client.eval("return redis.call('incrby', KEYS[1], ARGV[1])", 1, "counter", 41))


async def subscriptions(client):
    async with client.pubsub() as pubsub:
        await pubsub.subscribe("news")
        print(await pubsub.get_message(timeout=10))
        await pubsub.psubscribe("weather.*")
        print(await pubsub.get_message(timeout=10))
        print(await client.publish("news", "one"), await client.publish("weather.sea", "storm"))
        await client.publish("elsewhere", "nobody hears it")
        for _ in range(2):
            print(await pubsub.get_message(timeout=10))
        print(await pubsub.get_message(timeout=0.05))


async def blocked(client, count=1):
    """Wait until so many clients wait."""
    while (await client.info("clients"))["blocked_clients"] != count:
        await asyncio.sleep(0.01)


async def blocking(client):
    waiting = [asyncio.ensure_future(client.blpop("jobs", timeout=20)) for _ in range(3)]
    await blocked(client, 3)
    await client.rpush("jobs", 1, 2, 3)
    print(sorted(await asyncio.gather(*waiting)))
    print(await client.blpop("jobs", timeout=0.1))
    abandoned = asyncio.ensure_future(client.blpop("jobs", timeout=20))
    await blocked(client)
    abandoned.cancel()
    await asyncio.wait([abandoned])
    await blocked(client, 0)
    print("cancelled:", abandoned.cancelled())
    await client.xadd("log", {"event": "started"}, id="1-1")
    reading = asyncio.ensure_future(client.xread({"log": "$"}, block=20_000))
    await blocked(client)
    await client.xadd("log", {"event": "stopped"}, id="1-2")
    print(await reading)


async def many(client):
    limit = asyncio.Semaphore(40)

    async def work(n):
        async with limit:
            await client.set(f"key {n}", n)
            return int(await client.get(f"key {n}"))

    print(sum(await asyncio.gather(*(work(n) for n in range(300)))))


async def main():
    certificates = {
        "ssl_ca_certs": os.environ["SSL_CERT_FILE"],
        "ssl_certfile": os.environ["CLIENT_CERT"],
        "ssl_keyfile": os.environ["CLIENT_CERT"],
    }
    ways = {
        "TCP": redis.from_url(os.environ["REDIS_URL"]),
        "TLS": redis.from_url(os.environ["REDIS_TLS_URL"], **certificates),
        "Unix socket": redis.Redis(unix_socket_path=os.environ["REDIS_SOCKET"]),
    }
    for name, client in ways.items():
        print(name)
        async with client:
            for part in (values, pipelines, subscriptions, blocking, many):
                await part(client)
    try:
        await redis.from_url("redis://127.0.0.1:1").ping()
    except redis.ConnectionError as error:
        print(type(error).__name__)


asyncio.run(main())
