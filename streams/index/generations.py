"""Items of several encoders on one server: a numbered collection for each, so that a new one is filled beside the old.

    alias items                 the generation that counts: `items-N`
    alias items@ENCODER         the generation of an encoder that is complete; its workers keep it up
    alias items@ENCODER@filling one that is being filled

Users stay where they are, for they are the truth and know no encoder; only their tastes do. Theirs is the vector `dense`
for the first generation, `dense-N` for a later one: a write replaces the point with all its vectors, so that a taste is
always that of the last who wrote, and who has another encoder does not find it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from qdrant_client import AsyncQdrantClient

from streams.index.server import create, known_aliases, point_aliases
from streams.index.stored import DENSE, maker_of

FILLING: Final = "@filling"
_PEEKED: Final = 256
"""Items that are looked at to learn whose a generation is."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Where the items of one encoder lie."""

    collection: str
    complete: bool

    @property
    def number(self) -> int:
        """N of `items-N`; 1 for a collection without a number."""
        return number_of(self.collection) or 1

    @property
    def dense(self) -> str:
        """The name of its tastes' vector in `users`."""
        return DENSE if self.number == 1 else f"{DENSE}-{self.number}"


def number_of(name: str) -> int | None:
    """N of `anything-N`."""
    found = re.search(r"-(\d+)$", name)
    return int(found[1]) if found else None


def alias_of(items: str, encoder: str) -> str:
    """The alias of an encoder's generation, of what names may consist of."""
    return f"{items}@{re.sub(r'[^A-Za-z0-9._-]', '_', encoder)}"


async def find_generation(
    client: AsyncQdrantClient, items: str, users: str, encoder: str, dimension: int
) -> Generation:
    """The generation of an encoder; a new one, to be filled, where it has none. `items`, `users`: the aliases.

    Without a name: the one that counts, if there is any.
    """
    aliases = await known_aliases(client)
    if not encoder:
        return Generation(aliases.get(items, items), complete=True)
    mine = alias_of(items, encoder)
    if mine in aliases:
        return Generation(aliases[mine], complete=True)
    if mine + FILLING in aliases:
        return Generation(aliases[mine + FILLING], complete=False)
    there = {known.name for known in (await client.get_collections()).collections}
    live = aliases.get(items, items if items in there else None)
    if live is None:
        await create(client, f"{items}-1", dimension)
        await point_aliases(client, {items: f"{items}-1", mine: f"{items}-1"})
        return Generation(f"{items}-1", complete=True)
    if live not in [name for alias, name in aliases.items() if alias.startswith(f"{items}@")]:
        owner = await _owner(client, live) or encoder
        await point_aliases(client, {alias_of(items, owner): live})
        if alias_of(items, owner) == mine:
            return Generation(live, complete=True)
    name = await _unused(client, items, users, there, set(aliases.values()), dimension)
    await create(client, name, dimension)
    await point_aliases(client, {mine + FILLING: name})
    return Generation(name, complete=False)


async def other_generations(client: AsyncQdrantClient, items: str, own: str) -> list[str]:
    """The complete generations of other encoders, in a fixed order."""
    aliases = await known_aliases(client)
    return sorted(
        {name for alias, name in aliases.items() if alias.startswith(f"{items}@") and not alias.endswith(FILLING)}
        - {own}
    )


async def succeed(client: AsyncQdrantClient, items: str, encoder: str, collection: str) -> None:
    """Declare a generation complete and the one that counts."""
    aliases = await known_aliases(client)
    mine = alias_of(items, encoder)
    filling = mine + FILLING
    await point_aliases(client, {mine: collection, items: collection}, [filling] if filling in aliases else [])


async def forget_others(client: AsyncQdrantClient, items: str, users: str, own: Generation) -> list[str]:
    """Delete the generations of other encoders, filled or not, and their tastes; returns their collections' names."""
    aliases = await known_aliases(client)
    gone = {alias: name for alias, name in aliases.items() if alias.startswith(f"{items}@") and name != own.collection}
    await point_aliases(client, {}, gone)
    for name in sorted(set(gone.values())):
        await client.delete_collection(name)
        dense = Generation(name, complete=False).dense
        if dense in ((await client.get_collection(users)).config.params.vectors or {}):
            await client.delete_vector_name(users, dense)
    return sorted(set(gone.values()))


async def _owner(client: AsyncQdrantClient, collection: str) -> str | None:
    """Whose vectors a generation of an earlier release holds; None where it has none."""
    records, _ = await client.scroll(collection, limit=_PEEKED, with_payload=["body"])
    makers = (maker_of(record.payload["body"]) for record in records if record.payload)
    return next((maker for maker in makers if maker), None)


async def _unused(
    client: AsyncQdrantClient, items: str, users: str, there: set[str], named: set[str], dimension: int
) -> str:
    """A number of which no vectors are left anywhere; that of a collection which was made and never named is taken."""
    numbers = [number_of(name) or 1 for name in there if name == items or name.rpartition("-")[0] == items]
    vectors = (await client.get_collection(users)).config.params.vectors if users in await known_aliases(client) else {}
    numbers += [number_of(name) or 1 for name in (vectors if isinstance(vectors, dict) else {})]
    last = max(numbers, default=1)
    orphan = f"{items}-{last}"
    if orphan in there and orphan not in named:
        params = (await client.get_collection(orphan)).config.params.vectors
        fits = isinstance(params, dict) and DENSE in params and params[DENSE].size == dimension
        if fits and not (await client.count(orphan, exact=True)).count:
            return orphan
    return f"{items}-{last + 1}"
