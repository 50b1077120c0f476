"""Bearer tokens of an OpenID Connect issuer (extra ``oidc``): verified JWTs (RFC 7519, RFC 9068).

The issuer's public keys (JWKS, RFC 7517) are fetched when they are first needed, again when they
are old, and when a token names a key that is not among them. The signature algorithm must be one of
the setting's: ``none`` and the symmetric ones cannot be set. While the issuer does not answer, the
keys from before stay in use.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import jwt

from trueprob_service.edge.access import SCOPES, valid_model_glob
from trueprob_service.edge.keys import TOKEN_PREFIX, Principal
from trueprob_service.edge.throttle import Rate
from trueprob_service.errors import Unauthenticated, Unavailable

__all__ = ["OidcOptions", "OidcTokens", "fetch_json"]

_LOG: Final = logging.getLogger(__name__)
_FETCH_SECONDS: Final = 5.0
_MOST_BYTES: Final = 1 << 20
_MOST_TOKEN_BYTES: Final = 16 << 10
_OLD_SECONDS: Final = 300.0  # after which keys are fetched again
_RETRY_SECONDS: Final = 10.0  # between two attempts: tokens with made-up key ids cost no more
_REMEMBERED_SECONDS: Final = 60.0  # a verified token, so that a withdrawn key is noticed
_MOST_REMEMBERED: Final = 10_000
_REFUSALS: Final = (
    (jwt.ExpiredSignatureError, "it has expired"),
    (jwt.ImmatureSignatureError, "it is not valid yet"),
    (jwt.InvalidAudienceError, "it is for another audience"),
    (jwt.InvalidIssuerError, "it is from another issuer"),
    (jwt.MissingRequiredClaimError, "it lacks one of the claims exp, iss, aud and sub"),
    (jwt.InvalidAlgorithmError, "its algorithm is not one of oidc_algorithms"),
    (jwt.InvalidSignatureError, "its signature is wrong"),
)


@dataclass(frozen=True)
class OidcOptions:
    """What a token must say, and where its scopes and models are."""

    issuer: str
    audience: str
    jwks_url: str = ""  # default: the one of the issuer's discovery document
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    scopes_claim: str = "scope"
    models_claim: str = ""  # default: tokens are for all models
    leeway_seconds: float = 60.0
    rate: Rate | None = None


class OidcTokens:
    """Verifies the tokens of one issuer."""

    def __init__(
        self,
        options: OidcOptions,
        *,
        fetch: Callable[[str], Any] | None = None,  # reads a JSON document; default: `fetch_json`
        clock: Callable[[], float] = time.time,  # seconds since 1970 UTC
    ) -> None:
        self._options = options
        self._fetch = fetch or fetch_json
        self._clock = clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching = threading.Lock()
        # By digest of the token, until a time.
        self._verified: OrderedDict[str, tuple[Principal, float]] = OrderedDict()

    def remembered(self, token: str) -> Principal | None:
        """Who sends a token that was verified within the last minute."""
        found = self._verified.get(hashlib.sha256(token.encode()).hexdigest())
        return None if found is None or self._clock() >= found[1] else found[0]

    def verify(self, token: str) -> Principal:
        """Who sends a token; may fetch the issuer's keys.

        Raises `Unauthenticated` for a token that is not valid, and `Unavailable` if the keys cannot
        be fetched.
        """
        options = self._options
        if len(token) > _MOST_TOKEN_BYTES:
            raise _refused("it is too long")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in options.algorithms:
                raise jwt.InvalidAlgorithmError
            key = self._key(header.get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=list(options.algorithms),
                audience=options.audience,
                issuer=options.issuer,
                leeway=options.leeway_seconds,
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    # Compared with the service's own clock below.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            expires_at = self._check_times(claims)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            words = next((text for kind, text in _REFUSALS if isinstance(error, kind)), None)
            raise _refused(words or "it cannot be verified") from None
        principal = self._principal(claims)
        until = min(expires_at, self._clock() + _REMEMBERED_SECONDS)
        self._verified[hashlib.sha256(token.encode()).hexdigest()] = (principal, until)
        if len(self._verified) > _MOST_REMEMBERED:
            self._verified.popitem(last=False)
        return principal

    def _check_times(self, claims: dict[str, Any]) -> float:
        """Compare the times of a token with the clock; returns until when it is accepted."""
        now, leeway = self._clock(), self._options.leeway_seconds
        times = {name: claims.get(name) for name in ("exp", "nbf", "iat")}
        for value in times.values():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and abs(value) < 1e12):
                raise jwt.DecodeError
        expires_at = float(claims["exp"]) + leeway
        if now >= expires_at:
            raise jwt.ExpiredSignatureError
        if any((times[name] or 0.0) > now + leeway for name in ("nbf", "iat")):
            raise jwt.ImmatureSignatureError
        return expires_at

    def _principal(self, claims: dict[str, Any]) -> Principal:
        options = self._options
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject or not subject.isprintable():
            raise _refused("its sub must be a non-empty text of printable characters")
        models = None
        if options.models_claim:
            # A token without the claim may use no model: the empty list of globs matches none.
            globs = _texts(_claim(claims, options.models_claim))
            models = tuple(glob for glob in globs if valid_model_glob(glob))
        scopes = {
            text.rpartition(":")[2] if text.startswith("trueprob:") else text
            for text in _texts(_claim(claims, options.scopes_claim))
        }
        return Principal(
            key_id=f"{TOKEN_PREFIX}{subject}",
            scopes=frozenset(scopes & set(SCOPES)),
            models=models,
            rate=options.rate,
        )

    def _key(self, key_id: object) -> jwt.PyJWK:
        if key_id is not None and not isinstance(key_id, str):
            raise jwt.DecodeError
        now = self._clock()
        if now - self._fetched_at > _OLD_SECONDS or self._find(key_id) is None:
            with self._fetching:
                if self._find(key_id) is None or now - self._fetched_at > _OLD_SECONDS:
                    self._refresh(now)
        found = self._find(key_id)
        if found is not None:
            return found
        if not self._keys:
            raise Unavailable("the keys of the token's issuer cannot be fetched; try again later")
        raise _refused("its issuer has no such key")

    def _find(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _refresh(self, now: float) -> None:
        """Fetch the keys, unless that was tried a moment ago."""
        if 0 <= now - self._tried_at < _RETRY_SECONDS:
            return
        self._tried_at = now
        try:
            url = self._options.jwks_url or self._discovered()
            keys = _public_keys(self._fetch(url))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _LOG.warning("the keys of the OIDC issuer cannot be fetched: %s", type(error).__name__)
            return
        self._keys, self._fetched_at = keys, now

    def _discovered(self) -> str:
        """The address of the keys, from the issuer's discovery document, which must name it."""
        issuer = self._options.issuer
        document = self._fetch(issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document["issuer"] != issuer:
            raise ValueError("the discovery document is of another issuer")
        return str(document["jwks_uri"])


def _public_keys(document: Any) -> dict[str | None, jwt.PyJWK]:
    """The public signature keys of a JWKS, by id; others are left out."""
    keys: dict[str | None, jwt.PyJWK] = {}
    for entry in document["keys"]:
        if entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use", "sig") != "sig":
            continue
        try:
            keys[entry.get("kid")] = jwt.PyJWK.from_dict(entry)
        except jwt.PyJWTError:
            continue  # of a kind that this version does not know
    if not keys:
        raise ValueError("the issuer has no public key")
    return keys


def _claim(claims: dict[str, Any], name: str) -> object:
    """A claim by its name, or by a path with dots such as ``realm_access.roles``."""
    if name in claims:
        return claims[name]
    value: object = claims
    for step in name.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _texts(value: object) -> list[str]:
    """The words of a text, or the texts of a list."""
    if isinstance(value, str):
        return value.split()
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"the token is not accepted: {why}", reason="token")


def fetch_json(url: str) -> Any:
    """Read a JSON document over HTTPS, or over HTTP from this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (
        parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    ):
        raise ValueError("expected an https address")
    with urllib.request.urlopen(url, timeout=_FETCH_SECONDS) as answer:  # noqa: S310 - checked above
        body = answer.read(_MOST_BYTES + 1)
    if len(body) > _MOST_BYTES:
        raise ValueError("the document is too long")
    return json.loads(body)
