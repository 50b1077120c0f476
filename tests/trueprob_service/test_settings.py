import base64
import re
from pathlib import Path

import pytest

from trueprob_service.errors import InvalidSettings
from trueprob_service.settings import PREFIX, Settings, load_settings

ROOT = Path(__file__).parents[2]


OIDC = ("--oidc-issuer", "https://issuer.example", "--oidc-audience", "trueprob")


def test_defaults_listen_on_loopback_with_sqlite(tmp_path: Path) -> None:
    settings, warnings = load_settings(["--state-dir", str(tmp_path)], {})
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.resolved_database_url == f"sqlite:///{tmp_path.resolve()}/trueprob.sqlite3"
    assert warnings == ()


def test_a_flag_wins_over_a_variable() -> None:
    environ = {"TRUEPROB_PORT": "9000", "TRUEPROB_WINDOW_LABELS": "500"}
    settings, _ = load_settings(["--port", "9100"], environ)
    assert (settings.port, settings.window_labels) == (9100, 500)


def test_an_unknown_variable_is_named_with_the_nearest_setting() -> None:
    _, warnings = load_settings([], {"TRUEPROB_MAX_BODY_BYTE": "1", "OTHER": "x"})
    assert warnings == (
        "TRUEPROB_MAX_BODY_BYTE is not a setting; the nearest is TRUEPROB_MAX_BODY_BYTES",
    )


def test_service_links_of_kubernetes_are_ignored() -> None:
    environ = {
        "TRUEPROB_PORT": "tcp://10.0.0.1:8000",
        "TRUEPROB_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "TRUEPROB_PORT_8000_TCP_ADDR": "10.0.0.1",
        "TRUEPROB_PORT_8000_TCP_PROTO": "tcp",
        "TRUEPROB_SERVICE_HOST": "10.0.0.1",
        "TRUEPROB_SERVICE_PORT": "8000",
        "TRUEPROB_SERVICE_PORT_HTTP": "8000",
    }
    settings, warnings = load_settings([], environ)
    assert settings.port == 8000
    assert warnings == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "x"], "port: "),
        (["--port", "70000"], "port: "),
        (["--execution-providers", "cpu,tpu"], "execution_providers"),
        (["--execution-providers", "auto,cpu"], "execution_providers: auto cannot be combined"),
        (["--fit-method", "magic"], "fit_method: expected one of "),
        (["--host", "0.0.0.0"], "set api_keys_file, oidc_issuer, or allow_anonymous=true"),
        (["--rate-limit", "5"], "rate_limit: expected requests per second, minute or hour"),
        (["--rate-limit", "5/s"], "rate_limit is for each key"),
        ([*OIDC[:2]], "oidc_issuer needs oidc_audience"),
        (["--oidc-audience", "a"], "oidc_audience needs oidc_issuer"),
        (["--oidc-models-claim", "a"], "oidc_models_claim needs oidc_issuer"),
        ([*OIDC, "--oidc-issuer", "http://issuer.example"], "oidc_issuer must be an address"),
        ([*OIDC, "--oidc-issuer", "issuer.example"], "oidc_issuer must be an address"),
        ([*OIDC, "--oidc-jwks-url", "file:///keys"], "oidc_jwks_url must be an address"),
        ([*OIDC, "--oidc-algorithms", "HS256"], "oidc_algorithms: expected some of RS256"),
        ([*OIDC, "--oidc-algorithms", "RS256,none"], "got 'none'"),
        ([*OIDC, "--oidc-algorithms", ""], "oidc_algorithms: "),
        ([*OIDC, "--oidc-leeway-seconds", "-1"], "oidc_leeway_seconds: "),
        (["--audit-keep-days", "-1"], "audit_keep_days: "),
        (["--tls-cert", "a.pem"], "tls_cert and tls_key must be set together"),
        (["--alarm-tolerance", "2"], "alarm_tolerance: "),
        (["--replicas", "0"], "replicas: "),
        (["--inspect-memory", "1000"], "inspect_memory: .* greater than or equal to 268435456"),
        (["--inspect-memory", "2G"], "inspect_memory: .* valid integer"),
        (["--inspect-seconds", "0"], "inspect_seconds: "),
        (["--inspect-seconds", "inf"], "inspect_seconds: "),
        (["--poll-seconds", "0"], "poll_seconds: "),
        (["--metrics-port", "65535", "--replicas", "2"], "must be at most 65535, got 65536"),
        (["--metrics-port", "7999", "--replicas", "2"], "metrics_port 7999 to 8000 must leave out"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting(arguments: list[str], words: str) -> None:
    with pytest.raises(InvalidSettings, match=words) as caught:
        load_settings(arguments, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert load_settings(["--host", host], {})[0].host == host


def test_anonymous_use_beyond_loopback_must_be_meant() -> None:
    settings, _ = load_settings(["--host", "0.0.0.0", "--allow-anonymous"], {})
    assert settings.allow_anonymous


def test_an_issuer_is_as_good_as_keys() -> None:
    settings, _ = load_settings(
        [*OIDC, "--host", "0.0.0.0", "--oidc-algorithms", "ES256, EdDSA", "--rate-limit", "5/s"], {}
    )
    assert settings.oidc_algorithms == ("ES256", "EdDSA")
    assert settings.answered_hosts is None


def test_the_settings_are_frozen_and_their_secret_is_not_printed() -> None:
    settings = Settings(receipt_secrets="hush: this is a secret")
    assert "hush" not in repr(settings)
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]


def test_the_settings_page_has_what_help_prints_for_every_setting() -> None:
    page = (ROOT / "docs/settings.md").read_text("utf-8")
    rows = re.findall(rf"^\| `{PREFIX}([A-Z_]+)` \|[^|]*\| (.*) \|$", page, re.MULTILINE)
    assert {name: meaning.replace("`", "") for name, meaning in rows} == {
        name.upper(): (field.description or "").replace("`", "")
        for name, field in Settings.model_fields.items()
    }


def test_a_webhook_needs_an_address_and_a_secret() -> None:
    secret = "whsec_" + base64.b64encode(bytes(32)).decode()
    url = "https://example.org/hook?token=topsecret"
    assert Settings(webhook_url=url, webhook_secret=secret).webhook_url == url
    for address, key in (
        (url, ""),
        (url, "topsecret"),
        ("ftp://topsecret", secret),
        ("topsecret", secret),
    ):
        with pytest.raises(InvalidSettings, match="webhook_") as error:
            load_settings([], {"TRUEPROB_WEBHOOK_URL": address, "TRUEPROB_WEBHOOK_SECRET": key})
        assert "topsecret" not in str(error.value)
    assert "topsecret" not in repr(Settings(webhook_url=url, webhook_secret=secret))
