"""The routes under /fork/, for the page and for any program on this machine. One module for each subject.

A faulty request is answered by 422 with {"problems": [{"field", "value", "limit", "message"}]}, an unknown run by 404
with a sentence.
"""

from fastapi import FastAPI

from tuning.runs.service import RunService
from tuning.web.ask import add_ask_routes
from tuning.web.data import add_data_routes
from tuning.web.guard import guard
from tuning.web.health import add_health_route
from tuning.web.help import add_help_routes
from tuning.web.hub_data import add_hub_data_routes
from tuning.web.memory import add_memory_routes
from tuning.web.models import add_model_routes
from tuning.web.results import add_result_routes
from tuning.web.runs import add_run_routes
from tuning.web.serving import Serving
from tuning.web.static import add_static_routes


def add_routes(app: FastAPI, service: RunService, serving: Serving | None = None) -> None:
    """Add all routes, behind the guard: without a `serving`, everybody on this machine is let in and nobody else."""
    guard(app, serving or Serving(), service.home)
    add_health_route(app, service)
    add_ask_routes(app, service)
    add_model_routes(app)
    add_result_routes(app, service)
    add_data_routes(app, service.home, service.tokenizer_model)
    add_hub_data_routes(app)
    add_memory_routes(app, service)
    add_run_routes(app, service)
    add_help_routes(app)
    add_static_routes(app)
