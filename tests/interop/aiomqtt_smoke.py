"""aiomqtt: the asyncio client that most new Python programs use."""

import asyncio

import aiomqtt

from harness import LIMIT_SECONDS, case, expect_equal


@case
def publishes_and_receives(broker):
    async def talk(version):
        topic = f"aiomqtt/{version.name.lower()}"
        async with aiomqtt.Client("127.0.0.1", broker.port, protocol=version) as client:
            await client.subscribe(f"{topic}/#", qos=2)
            for qos in (0, 1, 2):
                await client.publish(f"{topic}/{qos}", payload=f"qos {qos}", qos=qos)
            found = []
            async for message in client.messages:
                found.append((str(message.topic), message.qos, message.payload.decode()))
                if len(found) == 3:
                    return found, topic

    for version in (aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5):
        found, topic = asyncio.run(asyncio.wait_for(talk(version), LIMIT_SECONDS))
        expect_equal(found, [(f"{topic}/{qos}", qos, f"qos {qos}") for qos in (0, 1, 2)], topic)


@case
def many_at_a_time(broker):
    """A thousand publishes in flight at once, all acknowledged."""

    async def flood():
        async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5,
                                  max_queued_incoming_messages=0) as client:
            client.pending_calls_threshold = 1000  # or it warns about each of them
            await client.subscribe("aiomqtt/many", qos=1)
            await asyncio.gather(*(client.publish("aiomqtt/many", payload=str(number), qos=1) for number in range(1000)))
            count = 0
            async for _ in client.messages:
                count += 1
                if count == 1000:
                    return count

    expect_equal(asyncio.run(asyncio.wait_for(flood(), LIMIT_SECONDS)), 1000, "messages")
