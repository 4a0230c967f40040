"""What the modules of routes share: the JSON object of a request with its checked members, and the run of an address.

A faulty one raises an error, which `problems_response` turns into the answer: 422 with {"problems": [...]}, or 404
where there is no such run.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from tuning.core.errors import Problem, RunError, SettingsError, TuningError
from tuning.core.visitor import current_visitor
from tuning.runs.ask import TooManyQuestions
from tuning.runs.run_row import RunRow
from tuning.runs.service import RunService

BODY_LIMIT = 256 * 1024
PAGE, REFUSED = "tuning-fork-page", "tuning-fork-refused"
"""Headers: of a request that the page itself sends, and of the answer that refuses it."""
RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")


class UnknownRunError(TuningError):
    """A run id in an address that no run has."""


def problems_response(request: Request, error: Exception) -> JSONResponse:
    """The exception handler of all routes: 422, or 404 where there is no such run. The page's own scripts get 200 with
    that status in a header, for a browser would log the refusal of a person's input as an error of the page."""
    status, answer = _refusal(error)
    if PAGE not in request.headers:
        return JSONResponse(answer, status_code=status)
    return JSONResponse(answer, headers={REFUSED: str(status), "Cache-Control": "no-store"})


def _refusal(error: Exception) -> tuple[int, dict[str, Any]]:
    problems = [problem.to_dict() for problem in error.problems] if isinstance(error, TuningError) else []
    if isinstance(error, UnknownRunError):
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


class Body(BaseModel):
    """The JSON object of a request: known members only, each of its own kind."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)
    refusals: ClassVar[Mapping[str, tuple[str, str, str]]] = {}
    """By member: the field, the limit and the sentence of the problem where pydantic refuses its value."""


M = TypeVar("M", bound=Body)


def take(body: dict[str, Any], model: type[M]) -> M:
    """The members of a request, checked. Raises SettingsError with a problem for each faulty or unknown member."""
    names = list(model.model_fields)
    unknown = [
        Problem(name, body[name], ", ".join(names), f"There is no {name!r} here; known: {', '.join(names)}.")
        for name in sorted(set(body) - set(names))
    ]
    if unknown:
        raise SettingsError(unknown)
    try:
        return model.model_validate(body)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    problems = []
    for name in dict.fromkeys(str(detail["loc"][0]) for detail in details):
        field, limit, message = model.refusals[name]
        problems.append(Problem(field, None if name == "token" else body.get(name), limit, message))
    raise SettingsError(problems)


def _optional(text: str | None) -> str | None:
    return (text or "").strip() or None


def _some_text(text: str) -> str:
    if not text.strip():
        raise ValueError("empty")
    return text.strip()


def _token(text: str | None) -> str | None:
    # a header holds printable ASCII only; anything else was not a token
    if text is not None and not (text.isascii() and (text.isprintable() or not text)):
        raise ValueError("not a token")
    return _optional(text)


SomeText = Annotated[str, AfterValidator(_some_text)]
"""A text without the blanks at its ends, and not empty."""
OptionalText = Annotated[str | None, AfterValidator(_optional)]
"""A text without the blanks at its ends; an empty one is none."""
Token = Annotated[str | None, AfterValidator(_token)]
"""A token for the hub as it was typed; a problem never repeats it."""
TOKEN_REFUSAL = ("token", "a token", "The token must be one line of letters, digits and _.")


def for_the_holder(field: str) -> None:
    """Raises SettingsError where a browser of a class asks for what only whoever started the server may do."""
    if current_visitor().owner is not None:
        limit = "bundled, or in a folder that the server was started with"
        message = (
            "the hub is asked by whoever started this server only; ask them, or choose what is bundled or uploaded"
        )
        raise SettingsError([Problem(field, None, limit, message)])


def row_of(service: RunService, run_id: str) -> RunRow:
    """Raises UnknownRunError."""
    if not RUN_ID.fullmatch(run_id):
        raise UnknownRunError(f"There is no run {ascii(run_id)[:60]} here.")
    try:
        return service.run(run_id)
    except RunError as error:
        raise UnknownRunError(str(error)) from None
