"""The page's own files: scripts and styles, and nothing else of the disk.

In: a path under /fork/static/. Out: the file, 304 where the browser has it already, or 404.
"""

import re

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from tuning.core.paths import assets_folder

STATIC_FILE = re.compile(r"page\.(js|css)|page/[a-z_-]+\.js|help/help\.(js|css)|vendor/[a-z.-]+\.js")
STATIC_KINDS = {"js": "text/javascript", "css": "text/css"}


def add_static_routes(app: FastAPI) -> None:
    @app.get("/fork/static/{path:path}")
    def static(path: str, request: Request) -> Response:
        file = assets_folder().joinpath(path) if STATIC_FILE.fullmatch(path) else None
        if file is None or not file.is_file():
            return JSONResponse({"message": f"There is no file {path!r} here."}, status_code=404)
        # our own scripts change with the program and are asked for again (cheaply, by ETag); a vendored one stays
        cache = "public, max-age=604800" if path.startswith("vendor/") else "no-cache"
        kind = STATIC_KINDS[path.rpartition(".")[2]]
        answer = FileResponse(file, media_type=kind, headers={"Cache-Control": cache}, stat_result=file.stat())
        if _has_it(request.headers.get("if-none-match", ""), answer.headers["etag"]):
            kept = {name: answer.headers[name] for name in ("etag", "cache-control", "last-modified")}
            return Response(status_code=304, headers=kept)
        return answer


def _has_it(tags: str, tag: str) -> bool:
    """Whether the browser has this version: W/ marks one that was packed on the way."""
    return any(one.strip().removeprefix("W/") in (tag, "*") for one in tags.split(","))
