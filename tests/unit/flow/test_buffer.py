"""What a batch is taken from the buffer."""

from __future__ import annotations

from collections import Counter

from streams.flow.buffer import REFRESHES, Buffer
from streams.values import Record, Topic


async def filled(**counts: int) -> Buffer:
    buffer = Buffer(records=1000, bytes_=1 << 20)
    for name, count in counts.items():
        for offset in range(count):
            await buffer.put(Record(Topic(name), 0, offset, 0.0, b"k", b"v"))
    return buffer


def topics(taken: list[Record]) -> Counter[str]:
    return Counter(record.topic.value for record in taken)


async def test_a_flood_of_refreshes_holds_up_events_for_few_lists_only() -> None:
    buffer = await filled(refreshes=200)
    assert topics(buffer.take(256, 0.25)) == {"refreshes": REFRESHES}
    await buffer.put(Record(Topic.EVENTS, 0, 0, 0.0, b"k", b"v"))
    taken = buffer.take(256, 0.25)
    assert topics(taken) == {"events": 1, "refreshes": REFRESHES}
    assert taken[0].topic is Topic.EVENTS


async def test_all_refreshes_come_in_the_end_and_in_order() -> None:
    buffer, offsets = await filled(refreshes=50), []
    while buffer.waiting:
        offsets += [record.offset for record in buffer.take(256, 0.25)]
    assert offsets == list(range(50))


async def test_a_small_batch_is_filled_with_what_there_is() -> None:
    buffer = await filled(refreshes=200, items=200)
    assert topics(buffer.take(8, 0.25)) == {"refreshes": 6, "items": 2}
    assert topics(buffer.take(64, 0.25)) == {"refreshes": REFRESHES, "items": 64 - REFRESHES}


async def test_events_leave_a_share_to_items() -> None:
    buffer = await filled(events=500, items=500)
    assert topics(buffer.take(100, 0.25)) == {"events": 75, "items": 25}
