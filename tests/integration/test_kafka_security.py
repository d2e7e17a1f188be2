"""TLS and SASL against a broker that really asks for them: every client of ours gets in, and nobody else."""

import subprocess

import msgspec
import pytest

from streams.errors import BrokerUnavailableError, ConfigurationError, FatalError
from streams.kafka.agents import KafkaConsumer
from streams.kafka.connection import client_options, servers
from streams.kafka.publisher import KafkaPublisher
from streams.settings import Settings
from streams.values import Message, Topic
from tests.support import worker_process
from tests.support.kafka import FOLDER, ApacheKafka, consume, create_topics, eventually

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # Faust's, refused

SECURED = """
listeners=SASL_SSL://127.0.0.1:${PORT},CONTROLLER://127.0.0.1:${CONTROLLER_PORT}
advertised.listeners=SASL_SSL://127.0.0.1:${PORT}
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required\
 username="admin" password="x" user_admin="x" user_bob="plain-secret";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={folder}/both.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
ssl.endpoint.identification.algorithm=
"""


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """Settings with which the user ana gets into a secured broker."""
    if not (FOLDER / "run").is_file():
        pytest.skip("there is no Apache Kafka here: set COLDSTREAM_TEST_KAFKA")
    folder = tmp_path_factory.mktemp("secured")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "ca.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "both.pem").write_text((folder / "key.pem").read_text() + (folder / "ca.pem").read_text())
    (folder / "properties").write_text(SECURED.replace("{folder}", str(folder)))
    (folder / "ana").write_text("secret\n")
    (folder / "bob").write_text("plain-secret\n")
    arguments = ["--config", str(folder / "properties")]
    for mechanism in ("SCRAM-SHA-512", "SCRAM-SHA-256"):
        arguments += ["--format-arg=--add-scram", f"--format-arg={mechanism}=[name=ana,password=secret]"]
    with ApacheKafka(folder / "cluster", *arguments) as program:
        yield Settings(
            kafka=program.servers, kafka_security_protocol="SASL_SSL", kafka_sasl_mechanism="SCRAM-SHA-512",
            kafka_sasl_username="ana", kafka_sasl_password_file=str(folder / "ana"),
            kafka_ssl_ca_file=str(folder / "ca.pem"),
        )  # fmt: skip


class Intake:
    def __init__(self):
        self.records = []
        self.owned = {}

    async def put(self, record):
        self.records.append(record)

    async def revoked(self):
        self.owned = {}

    async def assigned(self, partitions):
        self.owned = partitions


async def test_every_client_gets_in_by_scram_and_by_plain(secured, tmp_path):
    plain = msgspec.structs.replace(
        secured, kafka_sasl_mechanism="PLAIN", kafka_sasl_username="bob",
        kafka_sasl_password_file=secured.kafka_sasl_password_file.replace("ana", "bob"),
    )  # fmt: skip
    shorter = msgspec.structs.replace(secured, kafka_sasl_mechanism="SCRAM-SHA-256")
    await create_topics(secured)
    for count, settings in enumerate((secured, shorter, plain), start=1):
        publisher = KafkaPublisher(settings)
        await publisher.start()
        await publisher.send([Message(Topic.EVENTS, b"k", b"v")])
        await publisher.stop()
        assert len(await consume(settings, Topic.EVENTS, lambda records, count=count: len(records) >= count)) == count
    intake = Intake()
    consumer = KafkaConsumer(secured)
    await consumer.start(intake)
    await eventually(lambda: len(intake.records) == 3)
    await consumer.stop()


async def test_a_wrong_password_and_an_unknown_authority_are_refused_without_telling_the_secret(secured, tmp_path):
    (tmp_path / "wrong").write_text("guessed-secret")
    wrong = msgspec.structs.replace(secured, kafka_sasl_password_file=str(tmp_path / "wrong"))
    untrusting = msgspec.structs.replace(secured, kafka_ssl_ca_file="")
    for settings in (wrong, untrusting):
        publisher = KafkaPublisher(settings)
        with pytest.raises(BrokerUnavailableError) as raised:
            await publisher.start()
        assert "secret" not in str(raised.value)
    with pytest.raises(FatalError) as refused:
        await KafkaConsumer(wrong).start(Intake())
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kafka": "localhost"}, "host:port"),
        ({"kafka": " , "}, "names no server"),
        ({"kafka_security_protocol": "SASL_SSL"}, "USERNAME"),
        ({"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_username": "a"}, "PASSWORD_FILE"),
        (
            {
                "kafka_security_protocol": "SASL_PLAINTEXT",
                "kafka_sasl_username": "a",
                "kafka_sasl_password_file": "/none",
            },
            "cannot read a secret from /none",
        ),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_ca_file": "/none"}, "PEM"),
    ],
)
def test_settings_that_can_not_work_are_said(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        client_options(Settings(**changes))


def test_servers_may_be_several_and_ipv6():
    assert servers(Settings(kafka="a:1, [::1]:9092,")) == ["a:1", "[::1]:9092"]


# Records as Debezium's documentation shows them ("Data change events" of the PostgreSQL connector, "New record state
# extraction"), for a table `items` (item_id int, title, description, categories json, price numeric) and `users`.
SCHEMA = {"type": "struct", "fields": [{"type": "int32", "optional": False, "field": "item_id"}], "optional": False}
SOURCE = {"version": "3.2.0.Final", "connector": "postgresql", "name": "shop", "schema": "public", "lsn": 24023128}


def row(number: int, **changes: object) -> dict[str, object]:
    return {
        "item_id": number, "title": f"Kettle {number}", "description": f"boils water number {number}",
        "categories": '["kitchen"]', "price": "12.50", **changes,
    }  # fmt: skip


def change(op: str, before: object, after: object) -> dict[str, object]:
    return {"before": before, "after": after, "source": SOURCE, "op": op, "ts_ms": 1559033904863}


async def test_a_worker_follows_a_database_through_a_broker_that_asks_who_it_is(secured, tmp_path):
    settings = msgspec.structs.replace(secured, topic_prefix="debezium-")
    await create_topics(settings)
    environment = worker_process.settings(
        settings.kafka, tmp_path, topic_prefix="debezium-", items_format="debezium", users_format="debezium",
        **{name: getattr(settings, name) for name in msgspec.structs.asdict(settings) if name.startswith("kafka_s")},
    )  # fmt: skip

    def titles() -> dict[str, str]:
        """What the worker knows of the items: the description by id."""
        query = "&".join(f"id={number}" for number in range(1001, 1007))
        status, body = worker_process.get(f"http://{environment['COLDSTREAM_HTTP']}/items?{query}")
        assert status == 200, body
        return {item["item_id"]: item["description"] for item in msgspec.json.decode(body)["items"]}

    def message(topic: Topic, identity: dict[str, object], value: object, *, schema: bool = False) -> Message:
        key = {"schema": SCHEMA, "payload": identity} if schema else identity
        wrapped = {"schema": {"type": "struct"}, "payload": value} if schema else value
        return Message(topic, msgspec.json.encode(key), None if value is None else msgspec.json.encode(wrapped))

    def items(number: int, value: object, *, schema: bool = False) -> Message:
        return message(Topic.ITEMS, {"item_id": number}, value, schema=schema)

    with worker_process.worker(environment, tmp_path / "log"):
        publisher = KafkaPublisher(settings)
        await publisher.start()
        await publisher.send([
            items(1001, change("r", None, row(1001)), schema=True),  # a snapshot
            items(1002, change("c", None, row(1002))),
            items(1003, {**row(1003), "__deleted": "false", "__op": "c"}),  # flattened
            items(1004, change("c", None, row(1004))),
            items(1005, change("c", None, row(1005))),
            message(Topic.USERS, {"user_id": "ann"}, change("c", None, {"user_id": "ann", "profile": "a kettle"})),
        ])  # fmt: skip
        await eventually(lambda: len(titles()) == 5)
        await publisher.send([
            items(1001, change("u", None, row(1001, price="9", description="__debezium_unavailable_value"))),
            items(1002, change("u", row(1002), row(1002, description="is new"))),
            items(1003, {**row(1003), "__deleted": "true", "__op": "d"}),
            items(1004, change("d", {"item_id": 1004}, None), schema=True),
            items(1004, None, schema=True),  # the tombstone that follows
            items(1005, None),  # a tombstone alone: only a key
            message(Topic.USERS, {"user_id": "ann"}, change("d", {"user_id": "ann"}, None)),
        ])  # fmt: skip
        await eventually(lambda: titles() == {"1001": "boils water number 1001", "1002": "is new"})
        lists = await consume(settings, Topic.RECOMMENDATIONS, lambda all_: bool(all_) and all_[-1].value is None)
        await publisher.stop()
    assert msgspec.json.decode(lists[0].value)["strategy"] == "profile"
    assert "secret" not in (tmp_path / "log").read_text().replace("secrets", "")
