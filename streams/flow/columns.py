"""Items and their statistics as the worker holds them: the table that ranking reads, bounded by a setting."""

from __future__ import annotations

from streams.decide.table import Table


class Columns(Table):
    """The worker's table. What doesn't fit stays in the index, which remains the truth."""
