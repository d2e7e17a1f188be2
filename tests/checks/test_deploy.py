"""What is written for Docker and Kubernetes fits their schemas, our settings and our commands. Neither runs here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import compose_spec
import jsonschema
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from streams.commands.main import run
from streams.kafka.topics import PARTITIONS
from streams.settings import Settings, load, table

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
KUBERNETES_VERSION = "1.33"
SETTINGS = {name for name, _, _ in table()}


def an_object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties, "additionalProperties": False}


def a_resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return an_object(
        "apiVersion kind metadata spec",
        apiVersion=TEXT,
        kind={"const": kind},
        metadata=an_object("name", name=TEXT),
        spec=spec,
    )


TEXT = {"type": "string"}
NUMBER = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
PERIOD = {"type": "string", "pattern": "^\\d+(ms|s|m|h)$"}
OPERATORS = {
    "monitoring.coreos.com/v1": a_resource("PodMonitor", an_object(
        "selector podMetricsEndpoints", selector=an_object("matchLabels", matchLabels=TEXTS),
        podMetricsEndpoints={"type": "array", "items": an_object(
            port=TEXT, path=TEXT, interval=PERIOD, scrapeTimeout=PERIOD,
            authorization=an_object("credentials", type=TEXT, credentials=an_object("name key", name=TEXT, key=TEXT)),
            relabelings={"type": "array", "items": an_object(
                sourceLabels={"type": "array", "items": TEXT}, targetLabel=TEXT, replacement=TEXT, action=TEXT, regex=TEXT
            )},
        )},
    )),
    "keda.sh/v1alpha1": a_resource("ScaledObject", an_object(
        "scaleTargetRef triggers", scaleTargetRef=an_object("name", kind=TEXT, name=TEXT, apiVersion=TEXT),
        minReplicaCount=NUMBER, maxReplicaCount=NUMBER, pollingInterval=NUMBER, cooldownPeriod=NUMBER,
        advanced=an_object(horizontalPodAutoscalerConfig=an_object(behavior={"type": "object"})),
        triggers={"type": "array", "items": an_object("type metadata", type=TEXT, metadata=TEXTS)},
    )),
}  # fmt: skip
"""Of what the Prometheus operator and KEDA define, as far as we use it (their own schemas took the two manifests too)."""


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def manifests() -> list[dict[str, Any]]:
    files = kustomization()["resources"]
    return [document for name in files for document in yaml.safe_load_all((KUBERNETES / name).read_text("utf-8"))]


def kustomization() -> dict[str, Any]:
    return yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))


def of_kind(kind: str) -> dict[str, Any]:
    return next(document for document in manifests() if document["kind"] == kind)


def test_the_compose_file_fits_the_specification() -> None:
    parsed = compose_spec.PyCompose.from_json(json.dumps(compose()))
    parsed.validate()
    assert set(parsed.service_names()) == {"kafka", "qdrant", "topics", "worker", "prometheus", "grafana", "demo"}


def test_the_specification_notices_a_mistake() -> None:
    document = compose()
    document["services"]["kafka"]["healthchek"] = {}
    with pytest.raises(ValueError, match="healthchek"):
        compose_spec.PyCompose.from_json(json.dumps(document))


def test_compose_ports_are_on_loopback_and_images_are_pinned() -> None:
    for name, service in compose()["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"
        assert re.search(r":(v?\d+\.\d+\.\d+|cpu)$", service["image"]), f"{name} is not pinned"


def test_compose_services_say_when_they_are_well_and_keep_what_they_hold() -> None:
    document = compose()
    for name, service in document["services"].items():
        assert "healthcheck" in service, name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in document["volumes"] or (ROOT / source).exists(), f"{name} mounts {source}"
    assert document["services"]["demo"]["profiles"] == ["demo"]


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
def test_health_checks_tell_a_worker_that_is_well(status: int, *, well: bool) -> None:
    asked: list[str] = []

    class Worker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    kind, program, *arguments = compose()["services"]["worker"]["healthcheck"]["test"]
    (in_image,) = re.findall(r"HEALTHCHECK .*?CMD (\[.*?\])\n", (ROOT / "Dockerfile").read_text("utf-8"), re.DOTALL)
    assert (kind, program) == ("CMD", "python")
    with ThreadingHTTPServer(("127.0.0.1", 0), Worker) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for command in (arguments, json.loads(in_image)[1:]):
            moved = [argument.replace("9464", str(server.server_port)) for argument in command]
            ran = subprocess.run([sys.executable, *moved], capture_output=True, check=False, timeout=20)
            assert (ran.returncode == 0) is well, ran.stderr
        server.shutdown()
    assert asked == ["/readyz", "/healthz"]


def test_every_setting_that_is_set_exists() -> None:
    set_ = set(re.findall(r"COLDSTREAM_[A-Z_]+", (ROOT / "Dockerfile").read_text(encoding="utf-8")))
    for service in compose()["services"].values():
        set_ |= {name for name in service.get("environment", {}) if name.startswith("COLDSTREAM_")}
    (generated,) = kustomization()["configMapGenerator"]
    set_ |= {line.split("=")[0] for line in generated["literals"]}
    assert set_ <= SETTINGS


def test_settings_of_compose_and_kubernetes_load() -> None:
    worker = compose()["services"]["worker"]["environment"]
    (generated,) = kustomization()["configMapGenerator"]
    for environment in (worker, dict(line.split("=", 1) for line in generated["literals"])):
        loaded = load(environment)
        assert isinstance(loaded, Settings)
        assert loaded.http_token_file, "beyond loopback only with a token"


@pytest.mark.parametrize(
    "arguments",
    [["worker"], ["topics", "create"], ["publish"], ["dataset"]],
    ids=" ".join,
)
def test_commands_that_are_run_exist(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--help"]) == 0
    assert "Usage: coldstream" in capsys.readouterr().out


@pytest.mark.parametrize(
    "document", manifests(), ids=lambda document: f"{document['kind']}-{document['metadata']['name']}"
)
def test_manifests_fit_kubernetes(document: dict[str, Any]) -> None:
    if document["apiVersion"] in OPERATORS:
        jsonschema.Draft202012Validator(OPERATORS[document["apiVersion"]]).validate(document)
    else:
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("kind", ["PodMonitor", "ScaledObject"])
def test_a_field_that_an_operator_does_not_know_is_found(kind: str) -> None:
    document = of_kind(kind)
    schema = jsonschema.Draft202012Validator(OPERATORS[document["apiVersion"]])
    assert schema.is_valid(document)
    document["spec"]["maxReplicas"] = 3
    assert not schema.is_valid(document)


def test_a_manifest_with_a_mistake_is_found() -> None:
    document = of_kind("StatefulSet")
    document["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


def test_the_kustomization_names_every_manifest() -> None:
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(kustomization()["resources"]) == there


def test_the_kustomization_renders_and_settings_that_change_are_rolled_out() -> None:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed")
    ran = subprocess.run([program, "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    rendered = list(yaml.safe_load_all(ran.stdout))
    assert len(rendered) == len(manifests()) + 1
    (generated,) = (document for document in rendered if document["kind"] == "ConfigMap")
    assert re.fullmatch(r"coldstream-settings-\w{10}", generated["metadata"]["name"])
    for document in rendered:
        if document["kind"] in {"StatefulSet", "Job"}:
            (container,) = document["spec"]["template"]["spec"]["containers"]
            assert container["image"] == "coldstream:cpu"
            assert container["envFrom"] == [{"configMapRef": {"name": generated["metadata"]["name"]}}]
            kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


def test_pods_have_stable_names_probes_and_no_rights() -> None:
    pod = of_kind("StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    instance = next(each for each in container["env"] if each["name"] == "COLDSTREAM_INSTANCE_ID")
    assert instance["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_monitor_service_and_scaler_meet_the_workers() -> None:
    workers = of_kind("StatefulSet")
    labels = workers["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in workers["spec"]["template"]["spec"]["containers"][0]["ports"]}
    monitor = of_kind("PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= ports
    for document in manifests():
        if document["kind"] == "Service":
            assert document["spec"]["selector"].items() <= labels.items()
    assert workers["spec"]["serviceName"] == "coldstream-workers"


def test_scaling_never_goes_beyond_the_partitions() -> None:
    scaler = of_kind("ScaledObject")["spec"]
    assert scaler["scaleTargetRef"] == {"kind": "StatefulSet", "name": of_kind("StatefulSet")["metadata"]["name"]}
    assert scaler["minReplicaCount"] <= scaler["maxReplicaCount"] <= PARTITIONS
    (trigger,) = scaler["triggers"]
    assert trigger["metadata"]["topic"] == "events"
    assert trigger["metadata"]["consumerGroup"] == Settings().group
    assert trigger["metadata"]["allowIdleConsumers"] == "false"
    assert "replicas" not in of_kind("StatefulSet")["spec"]


def test_prometheus_is_set_up_as_the_rules_expect() -> None:
    configured = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert [job["job_name"] for job in configured["scrape_configs"]] == ["coldstream"]
    mounted = " ".join(compose()["services"]["prometheus"]["volumes"])
    for rules in configured["rule_files"]:
        assert f":{rules}:ro" in mounted


def test_the_dockerfile_passes_its_linter() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert program, "the extra dev brings hadolint"
    ran = subprocess.run([program, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_images_run_as_nobody_from_pinned_bases() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "\nUSER 10001:10001\n" in text
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+|source|base", base)
    assert {"cpu", "cuda"} <= set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


def test_constraints_pin_what_the_project_asks_for() -> None:
    lines = (ROOT / "deploy" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(name): version for name, version in
              (line.split("==") for line in lines if not line.startswith("#"))}  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [
        *project["dependencies"],
        *project["optional-dependencies"]["cpu"],
        *project["optional-dependencies"]["gpu"],
    ]
    for line in asked:
        requirement = Requirement(line)
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{line} is pinned to {version}: run make lock"
