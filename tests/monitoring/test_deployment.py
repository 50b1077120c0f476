import re
from typing import Any

import pytest

from tests.monitoring.monitoring_files import MONITORING, ROOT, load_yaml
from trueprob_service.settings import PREFIX, Settings

COMPOSE = load_yaml(ROOT / "docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
STAGES = dict(
    zip(
        re.findall(r"^FROM .+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE),
        re.split(r"^FROM .+$", DOCKERFILE, flags=re.MULTILINE)[1:],
        strict=True,
    )
)


def test_the_images_that_are_promised_exist() -> None:
    assert {"service", "service-gpu", "trainer"} <= set(STAGES)
    assert list(STAGES)[-1] == "service"  # what a build without --target makes
    for service in SERVICES.values():
        if "build" in service:
            assert service["build"]["target"] in STAGES


@pytest.mark.parametrize("stage", ["service", "service-gpu", "trainer"])
def test_an_image_runs_as_a_user_without_rights(stage: str) -> None:
    assert re.findall(r"^USER (.+)$", STAGES[stage], flags=re.MULTILINE) == ["10001:10001"]


def test_what_the_dockerfile_copies_is_let_into_the_build_and_no_test_is() -> None:
    copied = {
        source.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE)
        for source in line.split()[:-1]
    }
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert all(path in allowed or path.partition("/")[0] in allowed for path in copied)
    assert allowed == {path if path in allowed else path.partition("/")[0] for path in copied}
    assert not {"tests", ".", "shared"} & copied


def test_settings_in_the_images_and_in_compose_are_settings() -> None:
    text = DOCKERFILE + (ROOT / "docker-compose.yml").read_text("utf-8")
    named = {name.lower() for name in re.findall(PREFIX + r"([A-Z_]+[A-Z])", text)}
    assert named <= set(Settings.model_fields)


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", [name for name in SERVICES if "build" not in SERVICES[name]])
def test_a_foreign_image_is_pinned_unprivileged_and_has_a_health_check(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":v?\d+\.\d+", service["image"])
    assert service["user"] not in ("root", "0")
    assert service["cap_drop"] == ["ALL"]
    assert service["healthcheck"]["test"][0] == "CMD"


def test_what_compose_mounts_exists() -> None:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert mount.endswith(":ro"), f"{name}: {source}"
            else:
                assert source in COMPOSE["volumes"], f"{name}: {source}"


def test_prometheus_finds_its_rules_beside_its_configuration() -> None:
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["prometheus"]["volumes"])
    for name in ("prometheus.yml", *load_yaml(MONITORING / "prometheus.yml")["rule_files"]):
        assert mounts[f"./service/monitoring/{name}"] == f"/etc/prometheus/{name}"


def test_grafana_finds_data_source_and_dashboard_where_compose_mounts_them() -> None:
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["grafana"]["volumes"])
    where = mounts["./service/monitoring/grafana/dashboards"]
    provisioning = MONITORING / "grafana" / "provisioning"
    (provider,) = load_yaml(provisioning / "dashboards" / "trueprob.yml")["providers"]
    assert provider["options"]["path"] == where
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{where}/trueprob.json"
    (source,) = load_yaml(provisioning / "datasources" / "prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_the_profiles_are_what_the_names_say() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {
        "service": [], "service-gpu": ["gpu"], "prometheus": [], "grafana": [],
        "postgres": ["postgres"],
    }  # fmt: skip


def test_the_allocator_is_told_what_the_benchmarks_were_told() -> None:
    assert "MALLOC_MMAP_THRESHOLD_=268435456" in STAGES["service-base"]
    assert "MALLOC_TRIM_THRESHOLD_=1073741824" in STAGES["service-base"]


def test_no_file_names_a_registry() -> None:
    for name in ("Dockerfile", "docker-compose.yml", ".dockerignore"):
        assert not re.search(r"https?://(?!127\.0\.0\.1)", (ROOT / name).read_text("utf-8")), name
