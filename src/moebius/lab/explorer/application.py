"""The routes of the explorer."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from moebius.kit.errors import MoebiusError
from moebius.lab.explorer.explorer import Explorer
from moebius.lab.explorer.guard import MOST_BYTES, Guard

TYPES = {"css": "text/css", "js": "text/javascript"}
# Fields of a form, and bytes of one that is no file.
MOST_FIELDS, MOST_FIELD_BYTES = 2000, 64 * 2**10


def build_application(explorer: Explorer, token: str, port: int, most_bytes: int = MOST_BYTES) -> Guard:
    """The application that serves an explorer under one address.

    Arguments:
        explorer: whose views are served.
        token: first part of every path.
        port: that requests must name in their header Host.
        most_bytes: of an upload.
    """

    def page(request: Request) -> Response:
        return _html(explorer, lambda: explorer.page(request.query_params))

    def rows(request: Request) -> Response:
        return _html(explorer, lambda: explorer.rows(request.query_params))

    def row(request: Request) -> Response:
        return _html(explorer, lambda: explorer.row(explorer.number(request.path_params["number"])))

    def picture(request: Request) -> Response:
        number = request.path_params["number"]
        try:
            return Response(explorer.picture(explorer.number(number)), media_type="image/png")
        except MoebiusError as error:
            return _complaint(explorer, error)

    def static(request: Request) -> Response:
        return static_file(request.path_params["name"])

    async def ask(request: Request) -> Response:
        kind = request.headers.get("content-type", "").lower()
        # Any codec of Python may be named as the charset, also such as fail or give halves of a character.
        if not kind.startswith("multipart/form-data") or "charset" in kind:
            return HTMLResponse(explorer.writer.error("a form needs the type multipart/form-data, in UTF-8"), 415)
        limits: dict[str, Any] = {"max_files": 1, "max_fields": MOST_FIELDS, "max_part_size": MOST_FIELD_BYTES}
        fields: dict[str, str] = {}
        content, name = None, "your picture"
        try:
            async with request.form(**limits) as form:
                for key, value in form.items():
                    if isinstance(value, UploadFile):
                        content, name = await value.read(), value.filename or name
                    else:
                        fields[key] = value
        except HTTPException as error:
            complaint = explorer.writer.error(str(error.detail), "choose the file again")
            return HTMLResponse(complaint, error.status_code, error.headers)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        content = content or None
        return await run_in_threadpool(_answer, explorer, fields, content, name)

    routes = [
        Route("/", page),
        Route("/rows", rows),
        Route("/row/{number}", row),
        Route("/image/{number}.png", picture),
        Route("/static/{name}", static),
        Route("/ask", ask, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), token, port, most_bytes)


def static_file(name: str) -> Response:
    """One of the files beside this module that the page loads."""
    suffix = name.rpartition(".")[2]
    paths = {path.name: path for path in files("moebius.lab.explorer").joinpath("static").iterdir()}
    if suffix not in TYPES or name not in paths:
        return Response("no such file", 404, media_type="text/plain")
    return Response(paths[name].read_bytes(), media_type=TYPES[suffix])


def _answer(explorer: Explorer, fields: Mapping[str, str], content: bytes | None, name: str) -> Response:
    return _html(explorer, lambda: explorer.ask(fields, content, name))


def _html(explorer: Explorer, write: Callable[[], str]) -> Response:
    try:
        return HTMLResponse(write())
    except MoebiusError as error:
        return _complaint(explorer, error)


def _complaint(explorer: Explorer, error: MoebiusError) -> Response:
    return HTMLResponse(explorer.writer.error(error.message, error.fix), 400)
