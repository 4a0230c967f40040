"""A client of some of the page's routes alone, with faults told as the page tells them.

Comes in: the function that adds the routes, and what it needs.  Goes out: a client that has never seen a browser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from tuning.core.errors import TuningError
from tuning.runs.service import RunService
from tuning.web import add_routes
from tuning.web.requests import tell_problems


def client_of(add: Callable[..., None], *needed: Any) -> TestClient:
    """An error that no route tells of is an answer too, as it would be over the wire."""
    app = FastAPI()
    app.add_exception_handler(TuningError, tell_problems)
    add(app, *needed)
    return TestClient(app, raise_server_exceptions=False)


def client_of_all(service: RunService) -> TestClient:
    """A client of all routes, behind their guard."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, service)
    return TestClient(app, raise_server_exceptions=False)
