"""Who may do what: the token, the hosts by which the service is addressed, how large a request is, what a page may load.

Reading is free on loopback under its own names and needs the token elsewhere; a change needs it everywhere. It comes as `Authorization: Bearer`,
or, from a page, as a cookie that is derived from it; a change by cookie must come from a page of this service.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.topology import UsageError

COOKIE = "gauntlet"
#: No request of this API comes near it.
MOST_BODY = 64 * 1024
TOO_LARGE = f"A request holds at most {MOST_BODY // 1024} KiB."
LEAST_TOKEN = 16
TOKEN_VARIABLE = "GAUNTLET_TOKEN"
#: Open to everybody: whether the service lives, the form that takes the token, and what pages look like.
OPEN = ("/healthz", "/login", "/static/")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: What a run left is shown without any right: no origin, no forms, no connections.
POLICY_OF_FILES = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def token_of(file: Path | None, own: Path) -> str:
    """The token: of the file that was named, of the environment, or the service's own, made at its first start.

    Raises UsageError for a file that cannot be read, and for a token that is too short or holds a space.
    """
    if file is not None:
        try:
            return _checked(file.read_text().strip(), f"the file {file}")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The token cannot be read from {file}: {error}.") from error
    if TOKEN_VARIABLE in os.environ:
        return _checked(os.environ[TOKEN_VARIABLE].strip(), f"the variable {TOKEN_VARIABLE}")
    if not own.exists():
        made = os.open(own, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(made, "w") as written:
            written.write(f"{secrets.token_urlsafe(32)}\n")
    return _checked(own.read_text().strip(), f"the file {own}")


def _checked(token: str, where: str) -> str:
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"The token in {where} must be {LEAST_TOKEN} or more printable characters without a space.")
    return token


def cookie_of(token: str) -> str:
    """What a browser keeps instead of the token."""
    return hmac.new(token.encode(), b"gauntlet cookie", hashlib.sha256).hexdigest()


def same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


@dataclass(frozen=True)
class Access:
    """The rules. `hosts`: names by which the service may be addressed; none: any, which only a token makes safe."""

    token: str
    open_to_read: bool
    hosts: frozenset[str]

    @classmethod
    def of(cls, token: str, bound_to: str, more_hosts: Iterable[str] = ()) -> Access:
        more, loopback = frozenset(more_hosts), is_loopback(bound_to)
        own = {"localhost", "127.0.0.1", "::1", bound_to} if loopback else set()
        # With a name of its own it is addressed from elsewhere, through a proxy: reading is free no longer.
        return cls(token, loopback and not more, more | own)

    def knows_host(self, header: str) -> bool:
        if not self.hosts:
            return True
        try:
            return (urlsplit(f"//{header}").hostname or "") in self.hosts
        except ValueError:
            return False

    def allowed(self, headers: dict[str, str]) -> bool:
        """By token or cookie."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return same(given.strip(), self.token)
        return self.by_cookie(headers)

    def by_cookie(self, headers: dict[str, str]) -> bool:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return morsel is not None and same(morsel.value, cookie_of(self.token))

    def refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """(status, why) of a request that may not be; None of one that may."""
        if not self.knows_host(headers.get("host", "")):
            return 421, "This service is not known by that name; start it with --allow-host NAME if it should be."
        if any(path == one or (one.endswith("/") and path.startswith(one)) for one in OPEN):
            return None
        reads = method in ("GET", "HEAD", "OPTIONS")
        if reads and self.open_to_read:
            return None
        if not self.allowed(headers):
            return 401, "This needs the token: 'Authorization: Bearer TOKEN', or /login in a browser."
        if not reads and "authorization" not in headers and not self._from_here(headers):
            return 403, "A change by a page must come from a page of this service."
        return None

    def _from_here(self, headers: dict[str, str]) -> bool:
        origin = headers.get("origin", "")
        return bool(origin) and urlsplit(origin).netloc == headers.get("host", "")


class Guard:
    """ASGI middleware: refuses before anything is read, limits the body, and says what a page may load."""

    def __init__(self, app: Any, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        told = self.access.refusal(scope["method"], scope["path"], headers)
        if told is None and _length(headers.get("content-length", "0")) > MOST_BODY:
            told = 413, TOO_LARGE
        if told is not None:
            await _refuse(scope, send, *told)
            return
        read, begun = 0, False

        async def limited() -> dict[str, Any]:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            # What follows is not read; the client finds the answer and a connection that is closed.
            return {"type": "http.disconnect"} if read > MOST_BODY else message

        async def guarded(message: dict[str, Any]) -> None:
            nonlocal begun
            if read > MOST_BODY and not begun:
                return
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": _with_policy(message["headers"])}
            await send(message)

        try:
            await self.app(scope, limited, guarded)
        except Exception:
            if read <= MOST_BODY:
                raise
        if read > MOST_BODY and not begun:
            await _refuse(scope, send, 413, TOO_LARGE)


def _length(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else MOST_BODY + 1


def _with_policy(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    found = list(headers)
    there = {name.lower() for name, _ in found}
    ours = {
        b"content-security-policy": POLICY.encode(),
        b"x-content-type-options": b"nosniff",
        b"referrer-policy": b"same-origin",
        b"cross-origin-opener-policy": b"same-origin",
        b"cross-origin-resource-policy": b"same-origin",
        b"cache-control": b"no-store",
    }
    return found + [(name, value) for name, value in ours.items() if name not in there]


async def _refuse(scope: Scope, send: Send, status: int, why: str) -> None:
    """A refusal a page's reader can follow, or, for everybody else, in JSON."""
    accept = dict(scope["headers"]).get(b"accept", b"")
    headers = [(b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 401 and b"text/html" in accept and scope["method"] == "GET":
        status, body = 303, b""
        headers.append((b"location", b"/login"))
    else:
        body = json.dumps({"detail": why}).encode()
        headers.append((b"content-type", b"application/json"))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": _with_policy(headers)})
    await send({"type": "http.response.body", "body": body})
