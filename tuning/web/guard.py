"""Who may talk to this app: names it is called by, and no other site open in the same browser.

In: the app. Out: the app with its middleware, and errors told as answers.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from tuning.errors import TuningError
from tuning.web.requests import tell_problems


def guard(app: FastAPI, hosts: Iterable[str]) -> None:
    """`hosts` are the names of this app besides the local ones; an address of everywhere lets any name in."""
    names = set(hosts)
    allowed = ["*"] if names & {"0.0.0.0", "::"} else ["localhost", "127.0.0.1", "[::1]", "testserver", *sorted(names)]
    # the cheapest level: the next ones make curves a tenth smaller, for several times its work beside a training
    app.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=1)
    app.add_middleware(OwnOriginOnly)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed)
    app.add_exception_handler(TuningError, tell_problems)


class OwnOriginOnly:
    """Another site open in the same browser must not start anything here: its Origin gives it away."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                refusal = JSONResponse({"message": "Requests from another site are refused."}, status_code=403)
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)
