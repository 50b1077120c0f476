"""Every setting of the service: one frozen model (``settings_reading`` fills it)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trueprob_service.consistent_settings import check_consistent
from trueprob_service.receipts.secrets import read_receipt_secrets

__all__ = ["Settings"]

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]


class Settings(BaseModel):
    """What an operator can set.

    Each field's description is what ``--help`` prints; a test compares the table in
    docs/settings.md with this class. Sizes are bytes, times are seconds, tolerances are fractions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port; 0 takes a free one.")
    replicas: int = Field(
        1, ge=1, le=256, description="Processes that answer on the port, each with its own models."
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
    state_dir: Path = Field(Path("var"), description="Folder of the uploads and the SQLite file.")
    database_url: str = Field(
        "", description="SQLAlchemy URL. Default: SQLite in the state directory."
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
    max_upload_bytes: int = Field(1 << 30, ge=1024, description="Limit of an upload, inflated.")
    max_image_pixels: int = Field(50_000_000, ge=1, description="Limit of one image's pixels.")
    max_batch_rows: int = Field(64, ge=1, description="Images run through the network at once.")
    queue_rows: int = Field(1024, ge=1, description="Images that may wait for the network.")
    api_keys_file: Path | None = Field(
        None, description="JSON lines of API keys (id, sha256, scopes); see `keys`."
    )
    allow_anonymous: bool = Field(
        False, description="Listen beyond loopback without keys: anyone who reaches it may use it."
    )
    require_key_everywhere: bool = Field(
        False, description="Ask for a key on metrics, health and documentation too."
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
    allow_prediction_change: bool = Field(
        False, description="Fits may choose a calibrator that changes predictions."
    )
    fit_deadline_seconds: float = Field(
        3600.0, gt=0, allow_inf_nan=False, description="Longest time that a fit may take."
    )
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
        description="Labels of predictions on one input that count, per promotion and day (UTC); "
        "0: no limit.",
    )
    alarm_tolerance: float = Field(
        0.02, ge=0, lt=0.5, description="Calibration error that is not worth an alarm."
    )
    alarm_alpha: float = Field(
        0.01, gt=0, lt=1, description="Probability that a calibrated pair ever raises evidence."
    )
    alarm_run_length_labels: int = Field(
        100_000,
        ge=2,
        description="Labels, at least and on average, until a calibrated pair raises change.",
    )
    shadow_policy: Literal["act", "tell"] = Field(
        "act",
        description="Whether labels promote or drop a shadowing candidate (act), or only report "
        "it (tell).",
    )
    shadow_alpha: float = Field(
        0.01, gt=0, lt=1, description="Probability of ever deciding wrongly about a candidate."
    )

    refit_policy: str = Field(
        "off",
        pattern=r"^(off|on-alarm|every=[1-9][0-9]{0,8})$",
        description="When the refit window is fitted: off, on-alarm, or every=N labelled rows "
        "with logits.",
    )
    refit_action: Literal["promote", "shadow", "tell"] = Field(
        "promote",
        description="What happens to such a candidate: promote it if admitted, put it into the "
        "shadow of the live pair, or only tell.",
    )
    refit_promotions_per_day: int = Field(
        3,
        ge=1,
        description="Largest number of promotions by the refit policy, per model and 24 hours.",
    )
    refit_reference: str = Field(
        "reference",
        description="Name of a calibration set. If a model has it, such a candidate must not be "
        "significantly worse on it.",
    )
    webhook_url: str = Field(
        "", description="Where events are posted to (http or https); none: nowhere.", repr=False
    )
    webhook_secret: str = Field(
        "",
        description="Signs the events (Standard Webhooks): whsec_ and the base64 of 24 to 64 "
        "bytes; several, comma separated, all sign while one takes the place of another.",
        repr=False,
    )

    @field_validator("execution_providers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().lower() for part in value.split(",") if part.strip())
        return value

    @field_validator("execution_providers")
    @classmethod
    def _auto_stands_alone(cls, value: tuple[Provider, ...]) -> tuple[Provider, ...]:
        if "auto" in value and len(value) > 1:
            raise ValueError("auto stands alone")
        return value

    @field_validator("fit_method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        from trueprob.fitting.fit import METHODS

        if value not in METHODS:
            raise ValueError(f"expected one of {', '.join(METHODS)}, got {value!r}")
        return value

    @field_validator("receipt_secrets")
    @classmethod
    def _fine_secrets(cls, value: str) -> str:
        read_receipt_secrets(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        check_consistent(self)
        return self

    @property
    def resolved_metrics_targets_file(self) -> Path:
        """Where the file for Prometheus goes: what was set, else the state directory."""
        return self.metrics_targets_file or self.state_dir / "metrics-targets.json"

    @property
    def receipt_secret_file(self) -> Path:
        """Where the secret lies that the service makes when it is given none."""
        return self.state_dir / "receipt-secret"

    @property
    def resolved_database_url(self) -> str:
        """The SQLAlchemy URL: what was set, else SQLite under the state directory."""
        return self.database_url or f"sqlite:///{(self.state_dir / 'trueprob.sqlite3').resolve()}"
