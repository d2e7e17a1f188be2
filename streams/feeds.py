"""Item files of other people's shape: the Shopify product export and the Google Merchant feed, and HTML as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from html.parser import HTMLParser
from typing import Final

from streams.errors import ColdstreamError
from streams.files import Row
from streams.wire import to_rfc3339

SPACED_TAGS: Final = frozenset(
    {"p", "br", "div", "li", "ul", "ol", "tr", "td", "th", "h1", "h2", "h3", "h4", "h5", "h6"}
)
HIDDEN_TAGS: Final = frozenset({"script", "style"})
SHOPIFY_NAMES: Final = {
    "url handle": "handle",
    "body (html)": "description",
    "variant price": "price",
    "published on online store": "published",
}
"""Columns of the product CSV by one name each, in small letters: exports have old or new ones."""


def read_shopify(rows: Iterable[Row]) -> Iterator[Row]:
    """Items of a Shopify product export, of old or new columns: rows of one handle are one item, at its lowest price."""
    products: dict[str, list[Row]] = {}
    for raw in rows:
        row = {SHOPIFY_NAMES.get(name.lower(), name.lower()): value for name, value in raw.items()}
        if "handle" not in row:
            raise ColdstreamError("this is no Shopify product export: a row has no Handle (or URL handle)")
        products.setdefault(row["handle"], []).append(row)
    for handle, variants in products.items():
        whole = {name: value for row in reversed(variants) for name, value in row.items()}  # the first row wins
        options: dict[str, list[str]] = {}
        for place in ("1", "2", "3"):
            name = whole.get(f"option{place} name", "")
            values = [row[f"option{place} value"] for row in variants if f"option{place} value" in row]
            if name and name != "Title":
                options[name.lower()] = list(dict.fromkeys(values))
        path = [part.strip() for part in whole.get("product category", "").split(">") if part.strip()]
        tags = [tag.strip() for tag in whole.get("tags", "").split(",") if tag.strip()]
        prices = [row.get("price", "") for row in variants]
        status, published = whole.get("status", "active").lower(), whole.get("published", "true").lower() != "false"
        yield _prune({
            "item_id": handle,
            "title": whole.get("title", handle),
            "description": to_text(whole.get("description", "")),
            "categories": list(dict.fromkeys([*([whole["type"]] if "type" in whole else []), *reversed(path)])),
            "price": min(map(float, filter(_is_number, prices)), default=None),
            "attributes": _prune({"vendor": whole.get("vendor"), "tags": tags, **options}),
            "available": (status, published) == ("active", True),
        })  # fmt: skip


def read_google_merchant(rows: Iterable[Row]) -> Iterator[Row]:
    """Items of a Google Merchant feed, as tab-separated text, CSV, or RSS or Atom XML."""
    for raw in rows:
        row = {name.strip().lower().removeprefix("g:").replace(" ", "_"): value for name, value in raw.items()}
        if "id" not in row:
            raise ColdstreamError("this is no Google Merchant feed: an entry has no id")
        paths = [row[name] for name in ("product_type", "google_product_category") if name in row]
        texts = [text for path in paths for text in (path if isinstance(path, list) else [path])]
        categories = [
            part.strip() for text in texts for part in reversed(text.split(">")) if not part.strip().isdigit()
        ]
        on_sale = "sale_price" in row and "sale_price_effective_date" not in row  # else who knows when it is read
        expires = row.get("expiration_date")
        yield _prune({
            "item_id": row["id"],
            "title": to_text(row.get("title", "")),
            "description": to_text(row.get("description", "")),
            "categories": list(dict.fromkeys(categories)),
            "price": _to_price(str(row["sale_price"] if on_sale else row.get("price", ""))),
            "attributes": _prune({
                name: row.get(name)
                for name in ("brand", "color", "size", "gender", "age_group", "material", "pattern", "condition")
            }),
            "available": row.get("availability", "in_stock").replace(" ", "_").lower() != "out_of_stock",
            "expires_at": _to_time(expires) if expires else None,
        })  # fmt: skip


_AMOUNT: Final = re.compile(r"\d+(?:[.,]\d+)*")

SHAPES: Final[dict[str, Callable[[Iterable[Row]], Iterator[Row]]]] = {
    "shopify": read_shopify,
    "google-merchant": read_google_merchant,
}
"""The shapes of other people's item files, by name."""


def _prune(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None and value not in ("", [], {})}


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def _to_price(text: str) -> float | None:
    """The amount in `15.00 USD`, which is how Google asks for it, and in `USD 1,299.00`, `1.299,00 EUR`, `15,00 EUR`."""
    found = _AMOUNT.search(text)
    if found is None:
        return None
    signs = [sign for sign in found[0] if sign in ".,"]
    whole, _, rest = found[0].rpartition(signs[-1]) if signs else (found[0], "", "")
    if signs.count(signs[-1] if signs else "") > 1 or (signs == [","] and len(rest) == 3):  # 1,299 USD
        whole, rest = whole + rest, ""
    return float(f"{whole.replace('.', '').replace(',', '')}.{rest or 0}")


def _to_time(text: str) -> str:
    try:
        return to_rfc3339(datetime.fromisoformat(text).timestamp())
    except ValueError as error:
        raise ColdstreamError(f"expiration_date {text[:40]!r} is no ISO 8601 time") from error


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.hidden += tag in HIDDEN_TAGS
        if tag in SPACED_TAGS:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in HIDDEN_TAGS and self.hidden > 0
        if tag in SPACED_TAGS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def to_text(html: str) -> str:
    """HTML as plain text on one line; plain text stays what it is."""
    parser = _Text()
    parser.feed(html)
    parser.close()
    return " ".join("".join(parser.parts).split())
