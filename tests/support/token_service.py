"""A token service as registries have them: RS256 tokens that the real docker-registry checks."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

# docker-registry takes a token for so long after its end: it is ended that much earlier.
LEEWAY = 60  # seconds
ALL_ACTIONS = ("pull", "push", "delete")
ISSUER, SERVICE = "lab issuer", "lab registry"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request for a token."""

    method: str
    grant: str  # basic, anonymous, password, refresh_token
    user: str | None  # None: nobody, or refused
    scopes: tuple[str, ...]
    fields: Mapping[str, str]  # of the query or form
    status: int


class TokenService:
    """Gives tokens for one registry. Its attributes are a test's to change.

    Args:
        directory: Where the certificate of its key goes.
        users: Passwords by name.
        lifetime: Seconds after which the registry refuses a token.
    """

    def __init__(
        self, directory: Path, *, users: Mapping[str, str] | None = None, lifetime: float = 300
    ) -> None:
        self.users = dict(users or {})
        self.refresh_tokens: dict[str, str] = {}  # users by their refresh tokens
        self.lifetime = lifetime
        self.response_clock_skew = 0.0  # seconds that its clock is ahead in what it tells
        self.token_clock_skew = 0.0  # seconds that its clock is ahead in what it signs
        # What a user may do in a repository; None is anybody.
        self.allowed_actions: Callable[[str | None, str], Collection[str]] = lambda *_: ALL_ACTIONS
        self._requests: list[TokenRequest] = []
        self._lock = threading.Lock()
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate_bundle = directory / "tokens.pem"
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate_bundle.write_bytes(self._certificate().public_bytes(Encoding.PEM))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False  # each ends with its one request
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def realm(self) -> str:
        """The URL that is asked for tokens."""
        return f"http://127.0.0.1:{self._server.server_port}/token"

    @property
    def auth_config(self) -> dict[str, object]:
        """The registry's configuration of `auth`."""
        return {
            "token": {
                "realm": self.realm,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(self.certificate_bundle),
            }
        }

    @property
    def requests(self) -> list[TokenRequest]:
        """Every request for a token, in order."""
        with self._lock:
            return list(self._requests)

    def token(self, *scopes: str, user: str | None = None) -> str:
        """Return a token without asking over the wire."""
        return self._sign(user, scopes)

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def handle_request(
        self, method: str, fields: Mapping[str, list[str]], basic: tuple[str, str] | None
    ) -> tuple[int, dict[str, object]]:
        """Judge a request and sign a token; return status and body."""
        first = {name: values[0] for name, values in fields.items()}
        grant, user, known = self._authenticate(method, first, basic)
        scopes = tuple(scope for value in fields.get("scope", []) for scope in value.split())
        status = 200 if known else 401
        with self._lock:
            self._requests.append(TokenRequest(method, grant, user, scopes, first, status))
        if not known:
            error = {"code": "UNAUTHORIZED", "message": "incorrect username or password"}
            return status, {"errors": [error]}
        token = self._sign(user, scopes)
        issued = datetime.now(UTC) + timedelta(seconds=self.response_clock_skew)
        told = {"expires_in": self.lifetime, "issued_at": issued.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return status, {"token": token, "access_token": token, **told}

    def _authenticate(
        self, method: str, fields: Mapping[str, str], basic: tuple[str, str] | None
    ) -> tuple[str, str | None, bool]:
        """Return the kind of grant, the user, and whether they are who they say."""
        if method == "POST":
            grant = fields.get("grant_type", "")
            if grant == "refresh_token":
                user = self.refresh_tokens.get(fields.get("refresh_token", ""))
                return grant, user, user is not None
            basic = (fields.get("username", ""), fields.get("password", ""))
        elif basic is None:
            return "anonymous", None, True
        else:
            grant = "basic"
        known = self.users.get(basic[0]) == basic[1]
        return grant, basic[0] if known else None, known

    def _sign(self, user: str | None, scopes: tuple[str, ...]) -> str:
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = self.allowed_actions(user, name)
            granted = [action for action in actions.split(",") if action in allowed]
            access.append({"type": kind, "name": name, "actions": granted})
        now = time.time() + self.token_clock_skew
        claims = {
            "iss": ISSUER,
            "sub": user or "",
            "aud": SERVICE,
            "exp": math.ceil(now + self.lifetime) - LEEWAY,
            "nbf": int(now) - 3600,
            "iat": int(now),
            "jti": f"{len(self.requests)}",
            "access": access,
        }
        header = {"typ": "JWT", "alg": "RS256", "kid": self._key_id()}
        signed = b".".join(_segment(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(signed, padding.PKCS1v15(), SHA256())
        return b".".join((signed, _segment(signature))).decode()

    def _key_id(self) -> str:
        """The name that docker-registry 2.8 has for a key: libtrust's."""
        public = self._key.public_key()
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
        return ":".join(text[at : at + 4] for at in range(0, len(text), 4))

    def _certificate(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token service")])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(self._key, SHA256())
        )


def _segment(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _handler(service: TokenService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # seconds

        def do_GET(self) -> None:
            query = urllib.parse.urlsplit(self.path).query
            self._reply("GET", query)

        def do_POST(self) -> None:
            self._reply("POST", self._form().decode())

        def _form(self) -> bytes:
            """The body; skopeo sends it in chunks."""
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def _reply(self, method: str, encoded: str) -> None:
            fields = urllib.parse.parse_qs(encoded)
            status, told = service.handle_request(method, fields, self._basic())
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _basic(self) -> tuple[str, str] | None:
            scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
            if scheme != "Basic":
                return None
            user, _, password = base64.b64decode(encoded).decode().partition(":")
            return user, password

        def log_message(self, *args: Any) -> None:  # noqa: ANN401 - the server's own
            """Say nothing: `asked` has it all."""

    return Handler
