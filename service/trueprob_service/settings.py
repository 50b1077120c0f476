"""Every setting of the service, checked, and read from environment variables and flags.

`Settings` is the frozen model, `check_consistent` refuses combinations that do not work, and
`load_settings` fills the model. ``TRUEPROB_PORT=9000`` and ``--port 9000`` are the same setting; a
flag wins over a variable. Nothing else in the service reads the environment. The file is long
because every setting is a documented field of one class.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trueprob_service.edge.auth import LOOPBACK_HOSTS
from trueprob_service.edge.throttle import Rate
from trueprob_service.errors import InvalidSettings
from trueprob_service.receipts.secrets import read_receipt_secrets
from trueprob_service.webhook_settings import check_webhook, read_secrets

__all__ = ["PREFIX", "Settings", "check_consistent", "load_settings"]

PREFIX: Final = "TRUEPROB_"
# Kubernetes sets these for a service that is called trueprob. They are not settings.
_SERVICE_LINK: Final = re.compile(
    r"^TRUEPROB_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)$"
)
_SERVICE_LINK_VALUE: Final = re.compile(r"^(tcp|udp)://")
_HOST_NAME: Final = re.compile(r"^([a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f.]*(:[0-9a-f.]*){2,})$")
_ORIGIN: Final = re.compile(r"^https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$")
_PATH_PREFIX: Final = re.compile(r"^(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*$")
_OWN_PATH: Final = re.compile(
    r"^/(v1(/models(/.*)?)?|v2(/(models|health)(/.*)?)?|docs(/assets)?|page|metrics|openapi\.json)$"
)
# Old names of settings and their new ones. They stop the start: a warning would be overlooked.
_RENAMED: Final = {"receipt_secret": "receipt_secrets"}
# Signatures with a private key only: with a shared secret, a public key could pass for it.
_ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
_COMMANDS: Final = """commands:
    serve         serve predictions; what runs without a command
    register      add an ONNX classifier to the model repository
    keys          add, list and revoke API keys
    audit         verify the audit trail
    export-state  write the whole state of the service to a file
    import-state  read such a file into an empty database

'trueprob-service COMMAND --help' describes a command. The settings are those of serve.
"""

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]


class Settings(BaseModel):
    """All settings of the service.

    ``--help`` prints the fields' descriptions, and docs/settings.md repeats them. Sizes are in
    bytes, times in seconds, tolerances are fractions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    replicas: int = Field(
        1,
        ge=1,
        le=256,
        description="Number of processes that serve the port, each with its own models.",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of /metrics, which the main port then refuses. Replica i uses this port "
        "+ i; 0 takes free ports. Default: the main port for one process, free ports "
        "for several.",
    )
    metrics_targets_file: Path | None = Field(
        None,
        description="Prometheus file_sd file that lists the metrics ports of the replicas. "
        "Default: metrics-targets.json in the state directory.",
    )
    metrics_detail: Literal["auto", "full", "summary"] = Field(
        "auto",
        description="What /metrics has of each model: full, or summary, without bins, "
        "counters of classes and histograms. auto: full for up to 100 models.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Lines of the log: text, or one JSON object each."
    )
    access_log: bool = Field(
        False, description="Log a line for each request, without its query, body and key."
    )
    traces: bool = Field(
        False,
        description="Send a span for each request by OTLP over HTTP, as the standard OTEL_ "
        "variables say (extra otel).",
    )
    drain_seconds: float = Field(
        5,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="How long the service still answers "
        "after SIGTERM, with readiness 503; longer than a load balancer needs to notice.",
    )
    replica_hang_seconds: float = Field(
        15, gt=0, allow_inf_nan=False, description="A replica stuck for so long is replaced."
    )
    state_dir: Path = Field(
        Path("var"), description="Folder of the uploads and of the SQLite file."
    )
    database_url: str = Field(
        "", description="SQLAlchemy URL. Default: SQLite in the state directory."
    )
    database_timeout_seconds: float = Field(
        10, gt=0, allow_inf_nan=False, description="Longest time of a statement; then 503."
    )
    artifact_url: str = Field(
        "",
        description="Where uploaded sets are stored: a folder, or an fsspec URL (s3://…; extra "
        "artifacts). Default: the state directory.",
        repr=False,
    )
    poll_seconds: float = Field(
        2.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="How often a process asks the database for promotions, models and fits of "
        "other processes.",
    )
    sweep_seconds: float = Field(
        3600.0,
        gt=0,
        allow_inf_nan=False,
        description="Interval of the clean-up job.",
    )
    model_repository: Path = Field(Path("models"), description="The model repository's folder.")
    repository_poll_seconds: float = Field(
        5.0,
        ge=0,
        le=86400,
        description="How often a process looks for new versions in the model repository; 0: never.",
    )
    execution_providers: tuple[Provider, ...] = Field(
        ("auto",),
        min_length=1,
        description="onnxruntime providers (cpu, cuda, tensorrt) in order of preference, comma "
        "separated. If the first does not run, the service does not start. auto: CUDA "
        "if it works, otherwise CPU.",
    )
    max_body_bytes: int = Field(
        64 << 20, ge=1024, description="Limit of a prediction's body, both as sent and inflated."
    )
    max_upload_bytes: int = Field(
        1 << 30,
        ge=1024,
        description="Limit of an upload, inflated, and of its arrays in memory; JSON and CSV may "
        "have a quarter of it.",
    )
    max_header_bytes: int = Field(
        32 << 10,
        ge=8192,
        le=1 << 20,
        description="Limit of a request's first line and headers together.",
    )
    header_seconds: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="How long the headers of a request may take to arrive, and the first bytes of "
        "a new connection.",
    )
    body_bytes_per_second: int = Field(
        256,
        ge=0,
        description="Slowest arrival of a body, and slowest reading of an answer, on average over "
        "body_grace_seconds; 0: no limit.",
    )
    body_grace_seconds: float = Field(
        10.0, gt=0, le=3600, description="Over how long body_bytes_per_second is averaged."
    )
    keep_alive_seconds: float = Field(
        75.0, gt=0, le=86400, description="How long a connection may wait for its next request."
    )
    max_connections: int = Field(
        4096,
        ge=1,
        le=1_000_000,
        description="Connections that a process has open; beyond that, those that have been idle "
        "for longest are closed, and new ones are refused if none is idle.",
    )
    max_connections_per_address: int = Field(
        1024,
        ge=1,
        description="Connections of one IPv4 address or one IPv6 /64; trusted_proxies have no "
        "such limit.",
    )
    max_requests: int = Field(
        1024,
        ge=1,
        description="Requests that a process answers at a time; health and metrics "
        "are answered anyway.",
    )
    max_image_pixels: int = Field(50_000_000, ge=1, description="Limit of one image's pixels.")
    max_batch_rows: int = Field(
        64, ge=1, description="Largest number of images in one batch of the network."
    )
    network_deadline_seconds: float = Field(
        60,
        gt=0,
        allow_inf_nan=False,
        description="Longest run of a network; then its model "
        "answers 503 until another session is loaded.",
    )
    inspect_memory: int | None = Field(
        None,
        ge=1 << 28,
        description="Memory that a network may take when it is loaded and run for the first time, "
        "in a process of its own. Default: 4 times its files and 2 GiB.",
    )
    inspect_seconds: float = Field(
        60, gt=0, allow_inf_nan=False, description="Longest time that this may take."
    )
    queue_rows: int = Field(1024, ge=1, description="Images that may wait for the network.")
    api_keys_file: Path | None = Field(
        None,
        description="JSON lines of API keys; see `keys`. It is read again when it changes and on "
        "SIGHUP.",
    )
    rate_limit: str = Field(
        "",
        description="Requests that each key or token may send to a process, unless the key has a "
        "rate of its own: 100/second, 600/minute. Default: no limit.",
    )
    oidc_issuer: str = Field(
        "",
        description="Issuer whose bearer tokens are accepted beside API keys (https://…; extra "
        "oidc). Default: none.",
    )
    oidc_audience: str = Field("", description="Audience that tokens must be for.")
    oidc_jwks_url: str = Field(
        "",
        description="Address of the issuer's keys. Default: the one of its discovery document.",
    )
    oidc_algorithms: tuple[str, ...] = Field(
        ("RS256", "ES256"),
        min_length=1,
        description="Signature algorithms of tokens, comma separated.",
    )
    oidc_scopes_claim: str = Field(
        "scope",
        min_length=1,
        description="Claim with the scopes of a token, a list or words; dots lead into objects.",
    )
    oidc_models_claim: str = Field(
        "",
        description="Claim with the models of a token, as in a key; tokens without it may use "
        "none. Default: tokens are for all models.",
    )
    oidc_leeway_seconds: float = Field(
        60.0,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="Difference between the clocks of the issuer and of the service.",
    )
    audit_keep_days: int = Field(
        0, ge=0, le=36500, description="Days that rows of the audit trail are kept; 0: for ever."
    )
    allow_anonymous: bool = Field(
        False,
        description="Listen beyond loopback without keys: anyone who reaches the service may use "
        "it.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Host names that are answered to, comma separated: exact, *.example.com, or * "
        "for all. Without keys the service answers to 127.0.0.1, localhost, ::1 and these; with "
        "keys to all, unless this is set. Metrics and health answer to all.",
    )
    cors_origins: tuple[str, ...] = Field(
        (),
        description="Origins (https://app.example.com) whose pages may use the service, comma "
        "separated. Pages of other origins may not write.",
    )
    root_path: str = Field(
        "",
        description="Path under which a proxy serves the service, such as /trueprob, whether the "
        "proxy removes it or not. X-Forwarded-Prefix is not read.",
    )
    require_key_everywhere: bool = Field(
        False, description="Require a key for metrics, health and documentation too."
    )
    trusted_proxies: str = Field(
        "127.0.0.1", description="Proxies whose X-Forwarded-* headers are trusted."
    )
    tls_cert: Path | None = Field(None, description="TLS certificate chain (PEM).")
    tls_key: Path | None = Field(None, description="TLS private key (PEM).")
    receipt_ttl_seconds: int = Field(
        30 * 86400, ge=1, description="How long after its prediction a label is accepted."
    )
    receipt_secrets: str = Field(
        "",
        description="Secrets that sign receipts, comma separated, at least 16 bytes each: the "
        "first signs, all verify. Default with SQLite: one in the state directory, made at the "
        "first start.",
        repr=False,
    )
    fit_method: str = Field("smart", description="Calibration method of uploads that name none.")
    keep_prediction: bool = Field(
        False,
        description="Fits keep every prediction; else with two classes the method smart may move "
        "the threshold, and never the order of rows.",
    )
    allow_prediction_change: bool = Field(
        False, description="Fits may choose a calibrator that changes predictions."
    )
    fit_deadline_seconds: float = Field(
        3600.0, gt=0, allow_inf_nan=False, description="Longest time that a fit may take."
    )
    max_queued_fits: int = Field(16, ge=1, description="Requested fits of one model that may wait.")
    min_calibration_rows: int = Field(50, ge=1, description="Smallest set fitted without force.")
    refit_window_rows: int = Field(
        20_000, ge=1, le=10_000_000, description="Newest labelled rows kept for each version."
    )
    window_labels: int = Field(
        2000, ge=10, description="Number of latest labels that the gauges cover."
    )
    labels_per_input: int = Field(
        1000,
        ge=0,
        description="Largest number of labels of predictions on one input that count, per "
        "promotion and day (UTC); 0: no limit.",
    )
    remember_ttl_seconds: float = Field(
        7 * 86400.0,
        ge=0,
        allow_inf_nan=False,
        description="How long a prediction with an id of yours is found by it; 0: ids are refused "
        "and nothing is stored.",
    )
    remember_max_bytes: int = Field(
        10 << 30,
        ge=1 << 20,
        description="Size of all remembered predictions; beyond it the oldest are forgotten.",
    )
    remember_flush_seconds: float = Field(
        0.2,
        ge=0.01,
        le=60,
        description="How often predictions with ids are written: what a killed process can lose.",
    )
    alarm_tolerance: float = Field(
        0.02, ge=0, lt=0.5, description="Calibration error that is not worth an alarm."
    )
    alarm_class_tolerance: float = Field(
        0.05,
        ge=0,
        lt=0.5,
        description="Calibration error of the predictions of one class that is not worth an "
        "alarm; alarm_tolerance if that is larger.",
    )
    alarm_alpha: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="Probability that a calibrated pair ever raises an evidence alarm.",
    )
    alarm_run_length_labels: int = Field(
        100_000,
        ge=2,
        description="Average number of labels, at least, until a calibrated pair raises a change "
        "alarm.",
    )
    shadow_policy: Literal["act", "tell"] = Field(
        "act",
        description="Whether labels promote or drop a candidate in shadow and revert a promotion "
        "(act), or only report the decision (tell).",
    )
    shadow_alpha: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="Probability of ever making a wrong decision about a calibrator in shadow.",
    )
    rollback_labels: int = Field(
        5000,
        ge=0,
        description="Number of labels on which a promotion is compared with the calibrator before "
        "it. If that one proves better, it goes live again. 0: no comparison.",
    )
    refit_policy: str = Field(
        "off",
        pattern=r"^(off|on-alarm|every=[1-9][0-9]{0,8})$",
        description="When the refit window is fitted: off, on-alarm, or every=N labelled rows "
        "with logits.",
    )
    refit_action: Literal["promote", "shadow", "tell"] = Field(
        "promote",
        description="What happens to a candidate from a refit: promote it if admitted, put it into "
        "the shadow of the live pair, or only tell.",
    )
    refit_promotions_per_day: int = Field(
        3,
        ge=1,
        description="Largest number of promotions by the refit policy, per model and 24 hours.",
    )
    refit_reference: str = Field(
        "reference",
        description="Name of the reference set. If a model has a calibration set of this name, a "
        "candidate from a refit must not be significantly worse on it.",
    )
    webhook_url: str = Field(
        "",
        description="Address that events are posted to (http or https). Default: none.",
        repr=False,
    )
    webhook_secret: str = Field(
        "",
        description="Secret that signs the events (Standard Webhooks): whsec_ and the base64 of 24 "
        "to 64 bytes. Several, comma separated, all sign, so that one can replace another.",
        repr=False,
    )

    @field_validator("oidc_algorithms", mode="before")
    @classmethod
    def _algorithm_names(cls, value: object) -> object:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            return value
        names = tuple(str(name).strip() for name in names)
        for name in names:
            if name not in _ALGORITHMS:
                raise ValueError(f"expected some of {', '.join(_ALGORITHMS)}, got {name[:20]!r}")
        return names

    @field_validator("rate_limit")
    @classmethod
    def _readable_rate(cls, value: str) -> str:
        if value:
            Rate.parse(value)
        return value

    @field_validator("execution_providers", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().lower() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != "*" and not _HOST_NAME.match(name.removeprefix("*.")):
                raise ValueError(f"expected host names without scheme and port, got {name!r}")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.match(origin):
                raise ValueError(
                    f"expected origins such as https://app.example.com, without path, got "
                    f"{origin!r}"
                )
        return value

    @field_validator("root_path")
    @classmethod
    def _path_prefix(cls, value: str) -> str:
        value = value.rstrip("/")
        if not _PATH_PREFIX.match(value):
            raise ValueError(f"expected a path such as /trueprob or /tools/trueprob, got {value!r}")
        if _OWN_PATH.match(value):
            raise ValueError(
                f"{value} is a path of the service itself, so requests would be ambiguous: choose "
                "another"
            )
        return value

    @field_validator("execution_providers")
    @classmethod
    def _check_auto(cls, value: tuple[Provider, ...]) -> tuple[Provider, ...]:
        if "auto" in value and len(value) > 1:
            raise ValueError("auto cannot be combined with other providers: remove it or them")
        return value

    @field_validator("fit_method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        from trueprob.fitting.methods import METHODS

        if value not in METHODS:
            raise ValueError(f"expected one of {', '.join(METHODS)}, got {value!r}")
        return value

    @field_validator("receipt_secrets")
    @classmethod
    def _valid_secrets(cls, value: str) -> str:
        read_receipt_secrets(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        check_consistent(self)
        return self

    @property
    def resolved_metrics_targets_file(self) -> Path:
        """Path of the file that lists the metrics ports for Prometheus."""
        return self.metrics_targets_file or self.state_dir / "metrics-targets.json"

    @property
    def receipt_secret_file(self) -> Path | None:
        """File of the secret that the service makes itself; None with PostgreSQL.

        Processes on one PostgreSQL database may run on several hosts: each would make its own.
        """
        return None if self._uses_postgresql else self.state_dir / "receipt-secret"

    @property
    def resolved_database_url(self) -> str:
        """SQLAlchemy URL of the database, by default a SQLite file in the state directory."""
        return self.database_url or f"sqlite:///{(self.state_dir / 'trueprob.sqlite3').resolve()}"

    @property
    def answered_hosts(self) -> frozenset[str] | None:
        """Host names that requests may have; None for any."""
        if self.needs_keys:
            return frozenset(self.allowed_hosts) or None
        own = () if self.host in ("0.0.0.0", "::") else (self.host,)  # noqa: S104
        return frozenset((*LOOPBACK_HOSTS, *own, *self.allowed_hosts))

    @property
    def needs_keys(self) -> bool:
        """Whether requests need an API key or a token."""
        return self.api_keys_file is not None or bool(self.oidc_issuer)

    @property
    def _uses_postgresql(self) -> bool:
        return self.database_url.startswith("postgresql")


def check_consistent(settings: Settings) -> None:
    """Raise `ValueError` for settings that contradict each other or open the service by mistake."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ValueError("tls_cert and tls_key must be set together")
    keys_missing = not settings.needs_keys and not settings.allow_anonymous
    if keys_missing and not _is_loopback(settings.host):
        raise ValueError(
            f"host {settings.host} is reachable from other machines: set api_keys_file, "
            "oidc_issuer, or allow_anonymous=true if that is intended"
        )
    if settings.keep_prediction and settings.allow_prediction_change:
        raise ValueError(
            "keep_prediction and allow_prediction_change contradict each other: leave one out"
        )
    if settings.rate_limit and not settings.needs_keys:
        raise ValueError(
            "rate_limit is for each key: set api_keys_file or oidc_issuer, or leave it"
        )
    _check_oidc(settings)
    _check_fit_method(settings)
    if settings.webhook_url:
        check_webhook(settings.webhook_url)
        read_secrets(settings.webhook_secret)
    if settings.metrics_port:
        _check_metrics_ports(settings.metrics_port, settings)


def _check_oidc(settings: Settings) -> None:
    if not settings.oidc_issuer:
        given = [name for name in ("oidc_audience", "oidc_jwks_url", "oidc_models_claim")
                 if getattr(settings, name)]  # fmt: skip
        if given:
            raise ValueError(f"{given[0]} needs oidc_issuer")
        return
    if not settings.oidc_audience:
        raise ValueError(
            "oidc_issuer needs oidc_audience: tokens that the issuer made for other services must "
            "not be accepted"
        )
    for name in ("oidc_issuer", "oidc_jwks_url"):
        value = getattr(settings, name)
        parts = urlsplit(value)
        secure = parts.scheme == "https" or _is_loopback(parts.hostname or "")
        if value and not (parts.scheme in ("http", "https") and parts.hostname and secure):
            raise ValueError(f"{name} must be an address that starts with https://")
    if importlib.util.find_spec("jwt") is None:
        raise ValueError("oidc_issuer needs the extra oidc: pip install 'trueprob[oidc]'")


def _check_metrics_ports(first: int, settings: Settings) -> None:
    last = first + settings.replicas - 1
    if last > 65535:
        raise ValueError(f"metrics_port + replicas - 1 must be at most 65535, got {last}")
    if first <= settings.port <= last:
        raise ValueError(f"metrics_port {first} to {last} must leave out port")


def _check_fit_method(settings: Settings) -> None:
    if "fit_method" not in settings.model_fields_set:
        return  # the default may be; the parent of replicas need not load NumPy for this
    from trueprob.fitting.methods import method_for_classes, needs_permission

    method = settings.fit_method
    if needs_permission(method) and not settings.allow_prediction_change:
        raise ValueError(
            f"fit_method {method} may change predictions: set allow_prediction_change=true if that "
            "is intended"
        )
    method_for_classes(method, 2, keep_prediction=settings.keep_prediction)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(
    argv: Sequence[str], environ: Mapping[str, str], *, program: str = "trueprob-service"
) -> tuple[Settings, tuple[str, ...]]:
    """Read the settings from flags and environment variables; also returns warnings.

    Raises `InvalidSettings` for a value that cannot be used and for a setting that was renamed; the
    message names the setting.
    """
    _refuse_old_names(argv, environ)
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in environ.items():
        if (
            not name.startswith(PREFIX)
            or _SERVICE_LINK.match(name)
            or _SERVICE_LINK_VALUE.match(value)
        ):
            continue
        field = name.removeprefix(PREFIX).lower()
        if field in Settings.model_fields:
            values[field] = value
        else:
            nearest = difflib.get_close_matches(field, Settings.model_fields, n=1, cutoff=0.0)
            unknown.append(f"{name} is not a setting; the nearest is {PREFIX}{nearest[0].upper()}")
    values |= vars(_parser(program).parse_args(list(argv)))
    try:
        return Settings(**values), tuple(unknown)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = str(first["loc"][0]) if first["loc"] else "settings"
        raise InvalidSettings(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _refuse_old_names(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    flags = {argument.partition("=")[0] for argument in argv}
    for old, new in _RENAMED.items():
        for name, renamed in (
            (f"{PREFIX}{old.upper()}", f"{PREFIX}{new.upper()}"),
            (f"--{old.replace('_', '-')}", f"--{new.replace('_', '-')}"),
        ):
            if name in environ or name in flags:
                raise InvalidSettings(
                    f"{name} is no longer a setting: remove it and set {renamed} "
                    f"({Settings.model_fields[new].description})"
                )


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"{program} [COMMAND] [settings or options]",
        description="Serve calibrated probabilities over HTTP.",
        epilog=_COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        text = f"{field.description} [{PREFIX}{name.upper()}]".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            parser.add_argument(flag, metavar="VALUE", help=text)
    return parser
