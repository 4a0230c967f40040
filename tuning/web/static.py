"""The page's own files under /fork/static/: scripts and styles, and nothing else of the disk.

A file that the browser has already is answered with 304, any other path than a script's or style's with 404.
"""

import re
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from tuning.core.paths import assets_folder

STATIC_FILE = re.compile(r"page\.(js|css)|page/[a-z_-]+\.js|help/help\.(js|css)|vendor/[a-z.-]+\.js")
MEDIA_TYPES = {"js": "text/javascript", "css": "text/css"}
FULL_PLOTLY = "vendor/plotly.min.js"


def add_static_routes(app: FastAPI) -> None:
    @app.get("/fork/static/{path:path}")
    def static(path: str, request: Request) -> Response:
        file = static_file(path)
        if file is None or not file.is_file():
            return JSONResponse({"message": f"There is no file {path!r} here."}, status_code=404)
        # our own scripts change with the program and are asked for again (cheaply, by ETag); a vendored one stays
        cache = "public, max-age=604800" if path.startswith("vendor/") else "no-cache"
        media_type = MEDIA_TYPES[path.rpartition(".")[2]]
        answer = FileResponse(file, media_type=media_type, headers={"Cache-Control": cache}, stat_result=file.stat())
        if _is_current(request.headers.get("if-none-match", ""), answer.headers["etag"]):
            headers = {name: answer.headers[name] for name in ("etag", "cache-control", "last-modified")}
            return Response(status_code=304, headers=headers)
        return answer


def static_file(path: str) -> Path | None:
    """The file of a path below /fork/static/; None where no such path is served."""
    if path == FULL_PLOTLY:
        # Curves are drawn with Plotly's basic build, which the package does not have: it is vendored in assets/vendor.
        # The full build, four times as large, is the package's own, fetched only where a heat map is opened.
        package = find_spec("plotly")
        folders = package.submodule_search_locations if package else None
        return Path(folders[0], "package_data", "plotly.min.js") if folders else None
    return assets_folder().joinpath(path) if STATIC_FILE.fullmatch(path) else None


def _is_current(tags: str, tag: str) -> bool:
    """Whether the browser has this version: W/ marks one that was packed on the way."""
    return any(given.strip().removeprefix("W/") in (tag, "*") for given in tags.split(","))
