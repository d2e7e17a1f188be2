"""A member of the group as a process of its own: says as JSON lines what it is handed, and acknowledges as it is told.

usage: kafka_member.py SETTINGS-AS-JSON [all | none | COUNT]: what to acknowledge. Ends by SIGTERM with status 0.
"""

import asyncio
import json
import signal
import sys

import uvloop

from streams.errors import FatalError
from streams.kafka.agents import KafkaConsumer
from streams.kafka.watchdog import END_SECONDS, kill_after
from streams.settings import Settings


def say(**what):
    print(json.dumps(what), flush=True)  # noqa: T201


class Intake:
    def __init__(self, consumer, left):
        self.consumer, self.left = consumer, left

    async def put(self, record):
        acknowledged = self.left > 0
        self.left -= 1
        if acknowledged:
            self.consumer.acknowledge([record])
        say(
            put=record.topic, partition=record.partition, offset=record.offset,
            value=(record.value or b"").decode(errors="replace"), acknowledged=acknowledged,
        )  # fmt: skip

    async def revoked(self):
        say(revoked=self.consumer.interrupted())

    async def assigned(self, partitions):
        say(assigned={topic: sorted(numbers) for topic, numbers in partitions.items()})


async def main():
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    consumer = KafkaConsumer(Settings(**json.loads(sys.argv[1])))
    count = sys.argv[2]
    await consumer.start(Intake(consumer, {"all": 10**9, "none": 0}[count] if not count.isdigit() else int(count)))
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait([waiting, consumer.failed], return_when=asyncio.FIRST_COMPLETED)
    await consumer.stop()
    kill_after(END_SECONDS)  # as the worker does
    if consumer.failed.done():
        consumer.failed.result()


if __name__ == "__main__":
    try:
        uvloop.run(main())
    except FatalError as error:
        say(failed=type(error).__name__, message=str(error))
        sys.exit(1)
