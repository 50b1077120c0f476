"""Settings that each are allowed and together are not."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from trueprob_service.control.upkeep.webhook_settings import check_webhook, read_secrets
from trueprob_service.receipts.secrets import HOW_TO_MAKE_ONE

if TYPE_CHECKING:
    from trueprob_service.settings import Settings

__all__ = ["check_consistent"]


def check_consistent(settings: Settings) -> None:
    """Refuse what contradicts itself, and what would open the service by mistake.

    Raises `ValueError`: naming the settings.
    """
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ValueError("tls_cert and tls_key must be set together")
    anyone = settings.api_keys_file is None and not settings.allow_anonymous
    if anyone and not _is_loopback(settings.host):
        raise ValueError(
            f"host {settings.host} is reachable from other machines: set api_keys_file, "
            "or allow_anonymous=true if that is meant"
        )
    if not (settings.allow_prediction_change or _keeps_prediction(settings)):
        raise ValueError(
            f"fit_method {settings.fit_method} may change predictions: set "
            "allow_prediction_change=true if that is meant"
        )
    if settings.database_url.startswith("postgresql") and not settings.receipt_secrets.strip():
        raise ValueError(
            "receipt_secrets must be set with PostgreSQL, the same for every process on the "
            f"database; make one with: {HOW_TO_MAKE_ONE}"
        )
    if settings.webhook_url:
        check_webhook(settings.webhook_url)
        read_secrets(settings.webhook_secret)
    if settings.metrics_port:
        _check_metrics_ports(settings.metrics_port, settings)


def _check_metrics_ports(first: int, settings: Settings) -> None:
    last = first + settings.replicas - 1
    if last > 65535:
        raise ValueError(f"metrics_port + replicas - 1 must be at most 65535, got {last}")
    if first <= settings.port <= last:
        raise ValueError(f"metrics_port {first} to {last} must leave out port")


def _keeps_prediction(settings: Settings) -> bool:
    if "fit_method" not in settings.model_fields_set:
        return True  # the parent of replicas reads settings and never loads NumPy
    from trueprob.fitting.fit import keeps_prediction

    return keeps_prediction(settings.fit_method)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
