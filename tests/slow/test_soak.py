"""Five minutes under a steady load: what a worker holds stays as it is. An hour by hand: `python -m benchmarks.soak`."""

from __future__ import annotations

import pytest

from benchmarks.soak import measure

MINUTES = 5.0


@pytest.mark.timeout(600)
async def test_memory_and_file_handles_stay_flat():
    found = await measure(items=2_000, users=500, rate=50.0, minutes=MINUTES, step_seconds=15.0)
    rows = found["rows"]
    assert len(rows) >= 4 * MINUTES
    second_half = rows[len(rows) // 2 :]
    handles = [row["file_handles"] for row in second_half]
    assert max(handles) - min(handles) <= 8, rows
    assert found["rss_mib_a_minute"] < 5.0, rows
    assert max(row["rss_anon_mib"] for row in rows) < 700, "the limit that docs/reliability.md states"
