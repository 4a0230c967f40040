"""What a request may be, for every file of routes: one JSON object of known members, a run that is there.

In: a request. Out: its members, or an error that `tell_problems` turns into an answer: 422 with {"problems": [...]},
404 where no such run is.
"""

import json
import re
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from tuning.access import visitor
from tuning.asking import TooManyQuestions
from tuning.errors import Problem, RunError, SettingsError, TuningError
from tuning.rows import RunRow
from tuning.runs import RunService

BODY_LIMIT = 256 * 1024
PAGE, REFUSED = "tuning-fork-page", "tuning-fork-refused"
"""Headers: of a request that the page itself sends, and of the answer that refuses it."""
RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")


class NoSuchRun(TuningError):
    """A run id in an address that no run has."""


def tell_problems(request: Request, error: Exception) -> JSONResponse:
    """The exception handler of all routes: 422, or 404 where no such run is. The page's own scripts are answered 200,
    with that status in a header: what a person typed may be refused, and no browser calls it a fault of the page."""
    status, answer = _refusal(error)
    if PAGE not in request.headers:
        return JSONResponse(answer, status_code=status)
    return JSONResponse(answer, headers={REFUSED: str(status), "Cache-Control": "no-store"})


def _refusal(error: Exception) -> tuple[int, dict[str, Any]]:
    problems = [problem.to_dict() for problem in error.problems] if isinstance(error, TuningError) else []
    if isinstance(error, NoSuchRun):
        return 404, {"message": str(error)}
    if isinstance(error, TooManyQuestions):
        return 429, {"problems": [Problem("run", None, "", str(error)).to_dict()], "message": str(error)}
    if not problems:
        problems = [Problem("run", None, "", str(error)).to_dict()]
    return 422, {"problems": problems, "message": str(error)}


async def json_body(request: Request, most: int = BODY_LIMIT) -> dict[str, Any]:
    """The request's JSON object, at most that many bytes of it. Raises SettingsError."""
    text = b""
    async for chunk in request.stream():
        text += chunk
        if len(text) > most:
            limit = f"{most // 1024} kB"
            raise SettingsError([Problem("body", None, limit, f"The request is larger than {limit}.")])
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SettingsError([Problem("body", None, "a JSON object", "The request must hold one JSON object.")])
    return value


def take(body: dict[str, Any], *names: str) -> list[Any]:
    """The named members of a request; a member of another name is refused rather than overlooked."""
    problems = [
        Problem(name, body[name], ", ".join(names), f"There is no {name!r} here; known: {', '.join(names)}.")
        for name in sorted(set(body) - set(names))
    ]
    if problems:
        raise SettingsError(problems)
    return [body.get(name) for name in names]


def take_token(token: Any) -> str | None:
    """A token for the hub as it was typed; a problem never repeats it. Raises SettingsError."""
    # a header holds printable ASCII only; anything else was not a token
    if token is not None and not (isinstance(token, str) and token.isascii() and (token.isprintable() or not token)):
        message = "The token must be one line of letters, digits and _."
        raise SettingsError([Problem("token", None, "a token", message)])
    return (token or "").strip() or None


def for_the_holder(field: str) -> None:
    """Raises SettingsError where a browser of a class asks for what only whoever started the server may do."""
    if visitor().owner is not None:
        limit = "bundled, or in a folder that the server was started with"
        message = (
            "the hub is asked by whoever started this server only; ask them, or choose what is bundled or uploaded"
        )
        raise SettingsError([Problem(field, None, limit, message)])


def row_of(service: RunService, run_id: str) -> RunRow:
    """Raises NoSuchRun."""
    if not RUN_ID.fullmatch(run_id):
        raise NoSuchRun(f"There is no run {ascii(run_id)[:60]} here.")
    try:
        return service.run(run_id)
    except RunError as error:
        raise NoSuchRun(str(error)) from None
