"""Files of records, ours and other people's."""

import gzip
import io

import pytest

from streams.errors import ColdstreamError, ConfigurationError
from streams.feeds import read_google_merchant, read_shopify, to_text
from streams.files import hash_file, map_fields, read_rows, shape
from streams.values import Topic


def rows_of(tmp_path, content, name="file"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(str(path), io.BytesIO()))


LINES = '{"item_id": "1", "title": "Hut", "price": null}\n\n{"item_id": "2", "title": ""}\n'


def test_what_a_file_holds_is_seen_from_its_content(tmp_path):
    expected = [{"item_id": "1", "title": "Hut"}, {"item_id": "2"}]
    assert rows_of(tmp_path, LINES) == expected
    assert rows_of(tmp_path, "\ufeff" + LINES) == expected
    assert rows_of(tmp_path, gzip.compress(LINES.encode()), "no-suffix") == expected
    assert rows_of(tmp_path, '[{"item_id": "1", "title": "Hut"}, {"item_id": "2"}]') == expected
    assert rows_of(tmp_path, "item_id,title\r\n1,Hut\r\n2,\r\n") == expected
    assert rows_of(tmp_path, "\ufeffitem_id;title\n1;Hut\n2;\n") == expected
    assert rows_of(tmp_path, "item_id\ttitle\n1\tHut\n2\t\n") == expected
    assert rows_of(tmp_path, "") == []
    assert list(read_rows("-", io.BytesIO(LINES.encode()))) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n{bad\n', "record 2"),
        (b'{"a": "\xff"}\n', "record 1"),
        ("[1]", "record 1 is no object"),
        ('{"a": ' + "[" * 100_000, "record 1"),
        ('a,b\n1,"2\n', "record 1"),
        ("<rss><item>", "record 1"),
        (gzip.compress(LINES.encode())[:-12], "cannot read"),
    ],
)
def test_a_defect_is_one_sentence_that_names_the_record(tmp_path, content, message):
    with pytest.raises(ColdstreamError, match=message):
        rows_of(tmp_path, content)


def test_a_missing_file_is_wrong_use():
    with pytest.raises(ConfigurationError, match=r"cannot read nowhere\.jsonl"):
        list(read_rows("nowhere.jsonl", io.BytesIO()))


def test_cells_become_values_of_the_topic():
    row = {
        "item_id": 7, "title": " Hut ", "price": "12.5", "categories": "a| b |", "available": "No", "unknown": "x",
        "attributes.color": "red", "attributes": '{"size": 3}', "published_at": "1700000000",
        "description": "[1] no JSON",
    }  # fmt: skip
    assert shape(row, Topic.ITEMS) == {
        "item_id": "7", "title": "Hut", "price": 12.5, "categories": ["a", "b"], "available": False,
        "attributes": {"size": 3}, "published_at": 1.7e9,
        "description": "[1] no JSON",
    }  # fmt: skip
    assert shape({"user_id": "u", "interests": '["a"]', "attributes.age": 3}, Topic.USERS) == {
        "user_id": "u", "interests": ["a"], "attributes": {"age": 3},
    }  # fmt: skip
    assert shape({"value": "many", "session": "s"}, Topic.EVENTS) == {"value": "many", "session": "s"}


def test_fields_are_taken_from_other_columns_also_nested_ones():
    rows = [{"SKU": "1", "product": {"name": "Hut"}, "Farbe": "rot", "title": "old"}, {"SKU": "2"}]
    mapping = {"item_id": "SKU", "title": "product.name", "attributes.color": "Farbe"}
    assert list(map_fields(rows, mapping)) == [
        {"product": {"name": "Hut"}, "title": "Hut", "item_id": "1", "attributes": {"color": "rot"}},
        {"item_id": "2"},
    ]


def test_the_hash_is_of_the_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x")
    assert hash_file(str(tmp_path / "a")) == hash_file(str(tmp_path / "b")) == "2d711642b726b044"


SHOPIFY = """\
Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,Variant Price,Status
hut,Hut,"<p>Warm &amp; <b>dry</b></p><style>x</style>Felt",Alm,Apparel > Hats,Hat,"wool, warm",true,Size,S,30.00,active
hut,,,,,,,,,L,25.5,
stick,Stick,,Alm,,,,true,Title,Default Title,9,draft
rope,Rope,,,,,,FALSE,,,,active
"""


# The columns of Shopify's own sample file, with products of ours: two variants and an image's row, a draft.
SHOPIFY_NEW = """\
Title,URL handle,Description,Vendor,Product category,Type,Tags,Published on online store,Status,SKU,Barcode,\
Option1 name,Option1 value,Option2 name,Option2 value,Option3 name,Option3 value,Price,Price / International,\
Compare-at price,Cost per item,Inventory quantity,Product image URL,Image position,Gift card,SEO title
Hut,hut,"<p>Warm &amp; <b>dry</b></p><style>x</style>
Felt",Alm,Apparel > Hats,Hat,"wool, warm",TRUE,Active,H1,,Size,S,,,,,30.00,,40,,3,https://x/1.png,1,FALSE,Hut!
,hut,,,,,,,,H2,,,L,,,,,25.5,,,,,,,,
,hut,,,,,,,,,,,,,,,,,,,,,https://x/2.png,2,,
Stick,stick,,Alm,,,,TRUE,Draft,,,Title,Default Title,,,,,9,,,,,,,,
Rope,rope,,,,,,FALSE,Active,,,,,,,,,,,,,,,,,
"""


@pytest.mark.parametrize("content", [SHOPIFY, SHOPIFY_NEW], ids=["old columns", "new columns"])
def test_a_shopify_export_becomes_items(tmp_path, content):
    assert list(read_shopify(rows_of(tmp_path, content))) == [
        {
            "item_id": "hut", "title": "Hut", "description": "Warm & dry Felt",
            "categories": ["Hat", "Hats", "Apparel"], "price": 25.5,
            "attributes": {"vendor": "Alm", "tags": ["wool", "warm"], "size": ["S", "L"]},
            "available": True,
        },
        {"item_id": "stick", "title": "Stick", "price": 9.0, "attributes": {"vendor": "Alm"}, "available": False},
        {"item_id": "rope", "title": "Rope", "available": False},
    ]  # fmt: skip


GOOGLE_TEXT = """\
id\ttitle\tdescription\tprice\tsale price\tavailability\tgoogle product category\tproduct type\tbrand\texpiration date
1\tHut\tWarm &amp; dry\t30.00 EUR\t25 EUR\tin stock\t166\tApparel > Hats\tAlm\t2016-07-11T11:07+0100
2\tStick\t\t9 EUR\t\tout_of_stock\t\t\t\t
"""
GOOGLE_XML = """\
<?xml version="1.0"?><rss xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel><title>Shop</title>
<item><g:id>1</g:id><title>Hut</title><description>Warm &amp; dry</description><g:price>30.00 EUR</g:price>
<g:sale_price>25 EUR</g:sale_price><g:availability>in_stock</g:availability><g:brand>Alm</g:brand>
<g:google_product_category>166</g:google_product_category><g:product_type>Apparel &gt; Hats</g:product_type>
<g:expiration_date>2016-07-11T11:07+0100</g:expiration_date></item>
<item><g:id>2</g:id><title>Stick</title><g:price>9 EUR</g:price><g:availability>out of stock</g:availability></item>
</channel></rss>
"""


@pytest.mark.parametrize("content", [GOOGLE_TEXT, GOOGLE_XML])
def test_a_google_merchant_feed_becomes_items(tmp_path, content):
    assert list(read_google_merchant(rows_of(tmp_path, content))) == [
        {
            "item_id": "1", "title": "Hut", "description": "Warm & dry",
            "categories": ["Hats", "Apparel"], "price": 25.0, "attributes": {"brand": "Alm"}, "available": True,
            "expires_at": "2016-07-11T10:07:00.000Z",
        },
        {"item_id": "2", "title": "Stick", "price": 9.0, "available": False},
    ]  # fmt: skip


@pytest.mark.parametrize("read", [read_shopify, read_google_merchant])
def test_a_file_of_another_shape_is_refused(read):
    with pytest.raises(ColdstreamError, match="this is no"):
        list(read([{"name": "Hut"}]))


def test_a_sale_that_ends_is_no_price():
    row = {"id": "1", "price": "30 EUR", "sale_price": "25 EUR", "sale_price_effective_date": "2016-02-24/2016-02-29"}
    assert [item["price"] for item in read_google_merchant([row])] == [30.0]


@pytest.mark.parametrize(
    ("price", "amount"),
    [
        ("15.00 USD", 15.0), ("15,00 EUR", 15.0), ("1,299.00 USD", 1299.0), ("1.299,50 EUR", 1299.5), ("1,299 USD", 1299.0),
        ("1,234,567 JPY", 1234567.0), ("1.250 KWD", 1.25), ("USD 15", 15.0), ("15.00USD", 15.0), ("free", None),
    ],
)  # fmt: skip
def test_prices_are_read_as_they_are_written(price, amount):
    (item,) = read_google_merchant([{"id": "1", "price": price}])
    assert item.get("price") == amount


ATOM = """\
<?xml version="1.0"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><title>Online store</title><entry>
<g:id>TV_123456</g:id><g:title>22" LED TV</g:title><g:description>Stunning picture</g:description>
<g:condition>used</g:condition><g:availability>in stock</g:availability><g:price>159.00 USD</g:price>
<g:shipping><g:country>US</g:country><g:service>Standard</g:service><g:price>14.95 USD</g:price></g:shipping>
<g:product_type>Electronics &gt; TVs</g:product_type></entry></feed>
"""


def test_what_an_entry_costs_is_not_what_its_shipping_costs(tmp_path):
    assert list(read_google_merchant(rows_of(tmp_path, ATOM))) == [
        {
            "item_id": "TV_123456", "title": '22" LED TV', "description": "Stunning picture",
            "categories": ["TVs", "Electronics"], "price": 159.0, "attributes": {"condition": "used"}, "available": True,
        }
    ]  # fmt: skip


def test_html_becomes_text_and_text_stays():
    assert to_text("a<br>b<ul><li>c</li><li>d</li></ul><style>e</style>&nbsp;f") == "a b c d f"
    assert to_text("1 < 2 & 3 > 2") == "1 < 2 & 3 > 2"


def test_a_line_of_words_is_no_csv(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"garbage\n")
    with pytest.raises(ColdstreamError, match="neither JSON lines nor CSV"):
        list(read_rows(str(path), io.BytesIO()))


def test_a_file_that_grows_without_end_is_given_up(tmp_path, monkeypatch):
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY l0 "{"ha" * 50}">{laughs}]><rss><item><title>&l9;</title></item></rss>'
    with pytest.raises(ColdstreamError, match="record 1 can't be read"):
        rows_of(tmp_path, bomb)
    with pytest.raises(ColdstreamError, match="a line of more than 16 MiB"):
        rows_of(tmp_path, gzip.compress(b'{"item_id": "' + b"x" * 20_000_000))
    monkeypatch.setattr("streams.files.LARGEST_ARRAY", 1000)
    with pytest.raises(ColdstreamError, match="one record a line"):
        rows_of(tmp_path, "[" + "1," * 1000 + "1]")


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_who_reads_no_further_leaves_nothing_open(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    rows = read_rows(str(path), io.BytesIO())
    assert next(rows) == {"a": "1", "b": "2"}
    rows.close()
