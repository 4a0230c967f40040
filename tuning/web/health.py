"""The route GET /fork/health, by which a supervisor checks the server; it needs no token.

It answers {"status": "ok"}, or 503 with "trouble" where nothing can be stored. The cause is not in the answer.
"""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from tuning.runs.service import RunService


def add_health_route(app: FastAPI, service: RunService) -> None:
    @app.get("/fork/health")
    def health() -> JSONResponse:
        well = service.store.trouble is None
        answer = {"status": "ok" if well else "trouble"}
        return JSONResponse(answer, status_code=200 if well else 503, headers={"Cache-Control": "no-store"})
