"""Bearer tokens of a real issuer on a port of this machine, and those that must be refused."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.trueprob_service.application import application
from trueprob_service.edge.keys import new_key
from trueprob_service.edge.oidc import OidcOptions, OidcTokens, fetch_json
from trueprob_service.errors import Unauthenticated, Unavailable

AUDIENCE = "trueprob"
RSA_KEYS = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
EC_KEY = ec.generate_private_key(ec.SECP256R1())


@dataclass
class Issuer:
    """An issuer of tokens: its keys and how often they were fetched."""

    url: str = ""
    keys: dict[str, Any] = field(default_factory=dict)  # id → private key
    fetched: int = 0
    broken: bool = False
    told_issuer: str | None = None  # in the discovery document

    def jwks(self) -> dict[str, Any]:
        entries = []
        for key_id, key in self.keys.items():
            algorithm = jwt.algorithms.ECAlgorithm if key is EC_KEY else jwt.algorithms.RSAAlgorithm
            entry = algorithm.to_jwk(key.public_key(), as_dict=True)
            entries.append({**entry, "kid": key_id, "use": "sig"})
        secret = base64.urlsafe_b64encode(b"x" * 32).decode().rstrip("=")
        return {"keys": [*entries, {"kty": "oct", "kid": "shared", "k": secret}]}

    def token(
        self,
        key_id: str | None = "rsa",
        *,
        algorithm: str = "RS256",
        key: Any = None,
        drop: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        now = time.time()
        values = {
            "iss": self.url, "aud": AUDIENCE, "sub": "alice", "exp": now + 300, "iat": now,
            "scope": "openid predict", **claims,
        }  # fmt: skip
        values = {name: value for name, value in values.items() if name not in drop}
        signing = self.keys[key_id] if key is None and key_id is not None else key
        headers = {} if key_id is None else {"kid": key_id}
        return jwt.encode(values, signing, algorithm=algorithm, headers=headers)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Serves its discovery document and its keys."""
    this = Issuer(keys={"rsa": RSA_KEYS[0], "ec": EC_KEY})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/.well-known/openid-configuration":
                told = this.told_issuer or this.url
                document: Any = {"issuer": told, "jwks_uri": f"{this.url}/keys"}
            else:
                this.fetched += 1
                document = this.jwks()
            self.send_response(500 if this.broken else 200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    this.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield this
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Clock:
    """Seconds since 1970, shifted by the test."""

    shift: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.shift


def tokens(issuer: Issuer, clock: Callable[[], float] = time.time, **options: Any) -> OidcTokens:
    return OidcTokens(OidcOptions(issuer.url, AUDIENCE, **options), clock=clock)


@pytest.mark.parametrize(("key_id", "algorithm"), [("rsa", "RS256"), ("ec", "ES256")])
def test_a_token_is_accepted(issuer: Issuer, key_id: str, algorithm: str) -> None:
    verifier, token = tokens(issuer), issuer.token(key_id, algorithm=algorithm)
    assert verifier.remembered(token) is None
    found = verifier.verify(token)
    assert (found.key_id, found.actor, found.scopes) == (
        "oidc:alice", "oidc:alice", frozenset({"predict"}),
    )  # fmt: skip
    assert found.models is None
    assert verifier.remembered(token) == found


@pytest.mark.parametrize(
    ("claim", "value", "scopes"),
    [
        ("scope", "predict label unknown", {"predict", "label"}),
        ("scope", "trueprob:admin other:read", {"admin"}),
        ("scp", ["calibrate", "read", 3], {"calibrate", "read"}),
        ("realm_access.roles", None, set()),
        ("https://example.com/roles", ["read"], {"read"}),
    ],
)
def test_scopes_are_in_a_claim(issuer: Issuer, claim: str, value: object, scopes: set[str]) -> None:
    token = issuer.token(**{claim: value})
    assert tokens(issuer, scopes_claim=claim).verify(token).scopes == scopes


def test_claims_may_be_nested(issuer: Issuer) -> None:
    token = issuer.token(realm_access={"roles": ["label"]}, resource={"models": ["a*", "b/c"]})
    options = {"scopes_claim": "realm_access.roles", "models_claim": "resource.models"}
    found = tokens(issuer, **options).verify(token)
    assert (found.scopes, found.models) == (frozenset({"label"}), ("a*",))


def test_without_the_claim_of_models_a_token_is_for_none(issuer: Issuer) -> None:
    found = tokens(issuer, models_claim="models").verify(issuer.token())
    assert found.models == ()
    assert found.models_pattern is not None
    assert found.models_pattern.fullmatch("digits") is None


def unsigned(issuer: Issuer) -> str:
    return jwt.encode(
        {"iss": issuer.url, "aud": AUDIENCE, "sub": "a", "exp": time.time() + 60}, None, "none"
    )


def by_hand(issuer: Issuer, algorithm: str, secret: bytes, key_id: str) -> str:
    """A token with a shared secret, which the library refuses to make of a public key."""

    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "a", "exp": time.time() + 60}
    signed = part({"alg": algorithm, "typ": "JWT", "kid": key_id}) + b"." + part(claims)
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")).decode()


def with_header(header: str, claims: str = "e30") -> str:
    """A token with any header, and claims in base64."""
    return base64.urlsafe_b64encode(header.encode()).rstrip(b"=").decode() + f".{claims}.AAAA"


def public_pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


BAD: list[tuple[str, Callable[[Issuer], str], str]] = [
    ("audience", lambda i: i.token(aud="other"), "another audience"),
    ("audiences", lambda i: i.token(aud=["a", "b"]), "another audience"),
    ("issuer", lambda i: i.token(iss="https://evil.example"), "another issuer"),
    ("issuer's end", lambda i: i.token(iss=f"{i.url}/"), "another issuer"),
    ("expired", lambda i: i.token(exp=time.time() - 61), "it has expired"),
    ("too early", lambda i: i.token(nbf=time.time() + 90), "not valid yet"),
    ("from the future", lambda i: i.token(iat=time.time() + 90), "not valid yet"),
    ("no exp", lambda i: i.token(drop=("exp",)), "lacks one of the claims"),
    ("no aud", lambda i: i.token(drop=("aud",)), "lacks one of the claims"),
    ("no iss", lambda i: i.token(drop=("iss",)), "lacks one of the claims"),
    ("no sub", lambda i: i.token(drop=("sub",)), "lacks one of the claims"),
    ("exp as text", lambda i: i.token(exp="tomorrow"), "cannot be verified"),
    ("exp infinite", lambda i: i.token(exp=1e300), "cannot be verified"),
    ("empty sub", lambda i: i.token(sub=""), "its sub must be"),
    ("line break in sub", lambda i: i.token(sub="a\nb"), "its sub must be"),
    ("none", unsigned, "algorithm is not one of"),
    ("HS256 with the RSA key", lambda i: by_hand(i, "HS256", public_pem(RSA_KEYS[0]), "rsa"),
     "algorithm is not one of"),
    ("RS256 by name, HS256 in truth", lambda i: by_hand(i, "RS256", public_pem(RSA_KEYS[0]), "rsa"),
     "its signature is wrong"),
    ("the shared key of the JWKS", lambda i: by_hand(i, "HS256", b"x" * 32, "shared"),
     "algorithm is not one of"),
    ("RS512", lambda i: i.token(algorithm="RS512"), "algorithm is not one of"),
    ("another key's signature", lambda i: i.token("rsa", key=RSA_KEYS[1]), "signature is wrong"),
    ("ES256 under the id of RSA", lambda i: i.token("rsa", key=EC_KEY, algorithm="ES256"),
     "is not accepted"),
    ("unknown key", lambda i: i.token("new", key=RSA_KEYS[1]), "no such key"),
    ("no key id among several", lambda i: i.token(None, key=RSA_KEYS[0]), "no such key"),
    ("not a token", lambda i: "a.b.c", "cannot be verified"),
    ("deep", lambda i: with_header('{"a":' + "[" * 9_000), "cannot be verified"),
    ("key id as number", lambda i: with_header('{"alg":"RS256","kid":1}'), "cannot be verified"),
    ("algorithm as list", lambda i: with_header('{"alg":["RS256"]}'), "is not accepted"),
    ("claims that are no object", lambda i: with_header('{"alg":"RS256","kid":"rsa"}', "MQ"),
     "is not accepted"),
    ("long", lambda i: i.token(scope="x" * 20_000), "too long"),
    ("changed", lambda i: i.token()[:-4] + "AAAA", "is not accepted"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_token_is_refused(issuer: Issuer, make: Callable[[Issuer], str], words: str) -> None:
    verifier, token = tokens(issuer), make(issuer)
    with pytest.raises(Unauthenticated, match=words) as error:
        verifier.verify(token)
    assert error.value.reason == "token"
    assert token not in error.value.detail
    assert verifier.remembered(token) is None


def test_clocks_may_differ_a_little(issuer: Issuer) -> None:
    token = issuer.token(exp=time.time() - 30, iat=time.time() + 30, nbf=time.time() + 30)
    assert tokens(issuer).verify(token)
    with pytest.raises(Unauthenticated):
        tokens(issuer, leeway_seconds=10).verify(token)


def test_a_remembered_token_ends(issuer: Issuer) -> None:
    clock = Clock()
    verifier = tokens(issuer, clock, leeway_seconds=0)
    short, long = issuer.token(exp=time.time() + 20), issuer.token()
    verifier.verify(short)
    verifier.verify(long)
    clock.shift = 30
    assert verifier.remembered(short) is None
    assert verifier.remembered(long)
    clock.shift = 61
    assert verifier.remembered(long) is None


def test_keys_rotate(issuer: Issuer) -> None:
    clock = Clock()
    verifier = tokens(issuer, clock)
    verifier.verify(issuer.token())
    issuer.keys["next"] = RSA_KEYS[1]
    new = issuer.token("next")
    with pytest.raises(Unauthenticated):
        verifier.verify(new)  # fetched a moment ago
    clock.shift = 11
    assert verifier.verify(new)
    assert issuer.fetched == 2
    del issuer.keys["rsa"]
    old = issuer.token("rsa", key=RSA_KEYS[0])
    assert verifier.verify(old)
    clock.shift = 11 + 301
    with pytest.raises(Unauthenticated, match="no such key"):
        verifier.verify(issuer.token("rsa", key=RSA_KEYS[0], exp=time.time() + 1000))
    assert issuer.fetched == 3


def test_made_up_key_ids_cost_one_fetch(issuer: Issuer) -> None:
    verifier = tokens(issuer)
    for i in range(50):
        with pytest.raises(Unauthenticated):
            verifier.verify(issuer.token(f"made-up-{i}", key=RSA_KEYS[1]))
    assert issuer.fetched == 1


def test_while_the_issuer_is_away(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    issuer.broken = True
    verifier = tokens(issuer, clock)
    with pytest.raises(Unavailable, match="keys of the token's issuer cannot be fetched"):
        verifier.verify(issuer.token())
    issuer.broken = False
    clock.shift = 11
    assert verifier.verify(issuer.token())
    issuer.broken = True
    clock.shift = 11 + 301
    assert verifier.verify(issuer.token(exp=time.time() + 1000))  # with the keys from before
    assert caplog.text.count("cannot be fetched: HTTPError") == 2


def test_the_discovery_document_must_name_the_issuer(issuer: Issuer) -> None:
    issuer.told_issuer = "https://other.example"
    with pytest.raises(Unavailable):
        tokens(issuer).verify(issuer.token())
    found = tokens(issuer, jwks_url=f"{issuer.url}/keys").verify(issuer.token())
    assert found.key_id == "oidc:alice"


@pytest.mark.parametrize("url", ["http://issuer.example/keys", "file:///etc/passwd", "ftp://x/y"])
def test_keys_come_over_https(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        fetch_json(url)


def test_over_http_beside_keys(issuer: Issuer, tmp_path: Path) -> None:
    key, line = new_key("team-a", ["label"])
    (tmp_path / "keys.jsonl").write_text(line)
    options = {
        "api_keys_file": tmp_path / "keys.jsonl",
        "oidc_issuer": issuer.url,
        "oidc_audience": AUDIENCE,
        "oidc_models_claim": "models",
    }

    async def scenario() -> None:
        async with application(tmp_path / "state", **options) as client:

            async def ask(method: str, path: str, credential: str, **more: Any) -> Any:
                headers = {"authorization": f"Bearer {credential}"}
                return await client.request(method, path, headers=headers, **more)

            admin = issuer.token(scope="admin", models=["toy*"])
            body = {"n_classes": 2}
            assert (await ask("PUT", "/v1/models/toy", admin, json=body)).status_code == 201
            assert (await ask("PUT", "/v1/models/other", admin, json=body)).status_code == 403
            assert (await ask("GET", "/v1/models", key)).status_code == 200
            wrong = await ask("GET", "/v1/models", issuer.token(aud="other"))
            assert wrong.status_code == 401
            assert wrong.headers["www-authenticate"] == "Bearer"
            assert "another audience" in wrong.json()["detail"]
            (promotion,) = (await ask("GET", "/v1/models/toy/promotions", admin)).json()["items"]
            assert promotion["promoted_by"] == "oidc:alice"
            rows = (await ask("GET", "/v1/audit", admin)).json()["items"]
            assert {row["actor"] for row in rows} == {"oidc:alice"}
            metrics = (await client.get("/metrics")).text
            assert 'refused_requests_total{reason="token"} 1.0' in metrics

    asyncio.run(scenario())
