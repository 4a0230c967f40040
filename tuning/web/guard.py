"""Who may talk to this app, and as whom: the names it is called by, its token, and no other site in the same browser.

The guard is one plain ASGI middleware around the app. The token of the printed address becomes a cookie at the first
load and leaves the address. A browser that comes by the second address owns its runs, which a cookie of its own names.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuning.core.errors import TuningError
from tuning.core.visitor import Visitor, acting_for
from tuning.web.requests import problems_response
from tuning.web.serving import Serving, plain_name

log = logging.getLogger(__name__)

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OPEN = ("/fork/health",)
"""Paths that need no token."""
TOKEN_DAYS, OWNER_DAYS = 30, 365
OWNER_SECRET = re.compile(r"[0-9a-f]{32}")
PAGE_CALLS = re.compile(r"/gradio_api/(run/predict|info|startup-events|theme\.css|app_id)/?")
"""What the page itself asks of Gradio: its queue, its uploads and its proxy have no use here."""
WHERE = (
    "This page opens at the address that Tuning Fork printed where it was started: "
    "the one that ends in ?token=… (each start prints a new one)."
)


def guard(app: FastAPI, serving: Serving, home: Path) -> None:
    """Nothing of the app is reached but through the guard; `home` holds the uploads."""
    # the cheapest level: the next ones make curves a tenth smaller, for several times its work beside a training
    app.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=1)
    app.add_middleware(Guard, serving=serving, uploads=home / "uploads")
    app.add_exception_handler(TuningError, problems_response)


@dataclass(frozen=True, slots=True)
class _Entry:
    """How a request was let in."""

    visitor: Visitor
    cookies: tuple[str, ...] = ()
    """Set-Cookie lines of the answer."""


class Guard:
    """Host, origin and token of every request, and who asks while it is answered."""

    def __init__(self, app: ASGIApp, serving: Serving, uploads: Path) -> None:
        self.app, self.serving, self.uploads = app, serving, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(scope, receive, send, refusal)
            return
        if scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        in_address = (
            [value for name, value in query if name == "token"] if scope.get("method") in ("GET", "HEAD") else []
        )
        entry = self._entry(scope, headers, in_address)
        if entry is None:
            await _refuse(scope, receive, send, _no_token(scope["path"]))
            return
        if in_address:
            rest = urlencode([pair for pair in query if pair[0] != "token"], safe=",:")
            await _send_with(entry.cookies, _redirect(scope["path"], rest), scope, receive, send)
            return
        if scope["path"].startswith("/gradio_api/") and not PAGE_CALLS.fullmatch(scope["path"]):
            await _refuse(scope, receive, send, JSONResponse({"message": "Not used here."}, status_code=404))
            return
        with acting_for(entry.visitor):
            app = partial(_hide_gradio_errors, self.app) if scope["path"].startswith("/gradio_api/") else self.app
            await _send_with(entry.cookies, app, scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if plain_name(host) not in self.serving.names:
            message = f"This server is not called {host!r:.100}. Start it with --allow-host NAME to let a name in."
            return JSONResponse({"message": message}, status_code=400)
        if _from_another_site(scope, headers, host):
            return JSONResponse({"message": "Requests from another site are refused."}, status_code=403)
        return None

    def _entry(self, scope: Scope, headers: Headers, in_address: list[str]) -> _Entry | None:
        """None where no key is given, or one that does not open."""
        keys = self.serving.keys
        if keys is None:
            return _Entry(Visitor())
        port = (scope.get("server") or ("", None))[1] or 0
        # read leniently: other programs of this host may have set cookies that are none
        cookies, name = cookie_parser(headers.get("cookie", "")), f"tuning-fork-{port}"
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        candidates = [*in_address, *([bearer.strip()] if kind.lower() == "bearer" else []), cookies.get(name, "")]
        roles = {"holder", "guest"} if self.serving.guests else {"holder"}
        role = next((role for role in map(keys.role_of, candidates) if role in roles), None)
        if role == "holder":
            visitor, set_cookies = Visitor(), list[str]()
        elif role == "guest":
            secret = cookies.get(f"{name}-owner", "")
            set_cookies = []
            if not OWNER_SECRET.fullmatch(secret):
                secret = secrets.token_hex(16)
                set_cookies = [_cookie(scope, f"{name}-owner", secret, OWNER_DAYS)]
            visitor = self._guest(secret)
        else:
            return None
        if in_address:
            key = keys.holder if role == "holder" else keys.guest
            set_cookies.insert(0, _cookie(scope, name, key, TOKEN_DAYS))
        return _Entry(visitor, tuple(set_cookies))

    def _guest(self, secret: str) -> Visitor:
        owner = hashlib.sha256(secret.encode()).hexdigest()[:16]
        own = (self.uploads / owner).resolve()
        return Visitor(owner=owner, data=(own, *self.serving.data), models=self.serving.models)


def _from_another_site(scope: Scope, headers: Headers, host: str) -> bool:
    """Another site, or another port of this machine, open in the same browser: its Origin and Sec-Fetch-Site tell.
    A link from elsewhere may open the page, and nothing else."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    opens = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
    if changes and origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return True
    return site not in ("none", "same-origin") and (changes or not opens)


def _cookie(scope: Scope, name: str, value: str, days: int) -> str:
    # Lax and not Strict: a link in a chat or a mail opens the page by a redirect, which carries no Strict cookie
    secure = "; Secure" if scope.get("scheme") in ("https", "wss") else ""
    return f"{name}={value}; Path=/; Max-Age={days * 86_400}; HttpOnly; SameSite=Lax{secure}"


def _redirect(path: str, query: str) -> Response:
    """To the same page without its token; a relative address, so that no path leads to another host."""
    target = "./" + quote(path.rpartition("/")[2]) + (f"?{query}" if query else "")
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(target, status_code=303, headers=headers)


def _no_token(path: str) -> Response:
    headers = {"Cache-Control": "no-store"}
    if path.startswith(("/fork/", "/gradio_api/")):
        return JSONResponse({"message": WHERE}, status_code=403, headers=headers)
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Tuning Fork</title><p>{WHERE}</p></html>"
    return HTMLResponse(page, status_code=403, headers=headers)


async def _refuse(scope: Scope, receive: Receive, send: Send, answer: Response) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    else:
        await answer(scope, receive, send)


async def _hide_gradio_errors(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 422 where Gradio fails, as it does for calls that the page never makes; its own answer has internals."""
    begun = failed = False

    async def watched(message: Message) -> None:
        nonlocal begun, failed
        if message["type"] == "http.response.start":
            failed = message["status"] >= 500
            begun = not failed
        if not failed:
            await send(message)

    try:
        await app(scope, receive, watched)
    except Exception:
        log.info("a call that the page never makes failed", exc_info=True)
        failed = True
    if failed and not begun:
        await JSONResponse({"message": "This is no call of the page."}, status_code=422)(scope, receive, send)


async def _send_with(cookies: tuple[str, ...], app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    async def with_cookies(message: Message) -> None:
        if message["type"] == "http.response.start" and cookies:
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            for cookie in cookies:
                headers.append("set-cookie", cookie)
        await send(message)

    await app(scope, receive, with_cookies)
