"""Clients of the page's routes without a browser, whose faults are answered as they are over the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from tuning.core.errors import TuningError
from tuning.runs.service import RunService
from tuning.web import add_routes
from tuning.web.requests import problems_response


def client_of(add: Callable[..., None], *needed: Any) -> TestClient:
    """A client of the routes that the function `add` adds with the arguments `needed`; an unexpected error is an
    answer."""
    app = FastAPI()
    app.add_exception_handler(TuningError, problems_response)
    add(app, *needed)
    return TestClient(app, raise_server_exceptions=False)


def client_of_all(service: RunService) -> TestClient:
    """A client of all routes, behind their guard."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, service)
    return TestClient(app, raise_server_exceptions=False)
