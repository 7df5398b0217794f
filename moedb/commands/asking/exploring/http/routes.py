"""What is answered under which address."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from moedb.commands.asking.exploring.desk import Desk, Shown, encoded
from moedb.commands.asking.exploring.http.failing import BadRequestError, Failures
from moedb.commands.asking.exploring.http.guard import Refusal, error_body
from moedb.commands.asking.exploring.open_store import OpenStore
from moedb.commands.asking.exploring.page import page_of
from moedb.commands.asking.exploring.statements import LONGEST, offers_of, rows_of
from moedb.commands.asking.exploring.workers import GoneError
from moedb.errors import did_you_mean
from moedb.queries.report.pages.rendering import asset_files

_JSON = "application/json"
_KINDS = {"js": "text/javascript; charset=utf-8", "css": "text/css", "txt": "text/plain"}
_COMPLETION_SECONDS = 5.0
_GONE = 499
"""The status that nobody sees: who asked has gone."""

Answer = Callable[[Request], Awaitable[Response]]
Text = Annotated[str, StringConstraints(max_length=LONGEST)]
Posted = TypeVar("Posted", bound=BaseModel)


class _Typed(BaseModel):
    """A statement that is run; ``run`` is the one that tables hold, or null for every run."""

    model_config = ConfigDict(extra="forbid", strict=True)
    statement: Text
    run: str | None = None
    snapshot: str


class _Begun(BaseModel):
    """What stands before the cursor."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: Text


class Routes:
    """The addresses of the server.

    Parameters
    ----------
    store
        The store.
    shown
        What is shown where an address names no run.
    seconds
        How long a statement may take.
    """

    def __init__(self, store: OpenStore, shown: Shown, seconds: float) -> None:
        self._store = store
        self._shown = shown
        self._seconds = seconds
        self._failures = Failures(store.snapshot)
        self._assets = asset_files(is_live=True)

    def app(self) -> Starlette:
        """What answers requests."""

        def route(path: str, answer: Answer, method: str = "GET") -> Route:
            return Route(path, self._told(answer), methods=[method])

        return Starlette(
            routes=[
                route("/", self._page),
                route("/assets/{name}", self._asset),
                route("/view/{name}", self._view),
                route("/news", self._news),
                route("/sql", self._sql, "POST"),
                route("/complete", self._complete, "POST"),
            ],
            exception_handlers={404: _not_found},
        )

    def _told(self, answer: Answer) -> Answer:
        async def told(request: Request) -> Response:
            try:
                return await answer(request)
            except (GoneError, ClientDisconnect):
                return Response(status_code=_GONE)
            except Refusal as refusal:
                return Response(error_body(refusal.message), refusal.status, media_type=_JSON)
            except Exception as error:
                status, message, hint = self._failures.told(error)
                return Response(error_body(message, hint), status, media_type=_JSON)

        return told

    async def _page(self, request: Request) -> Response:
        given = _parameters(request, "run", "run_b", "fresh")
        if given.pop("fresh", None) is not None:
            await self._store.read_again()
            return RedirectResponse(f"/?{urlencode(given)}", status_code=303)
        shown = Shown(given["run"], given.get("run_b")) if "run" in given else self._shown
        version = self._store.version
        made = partial(page_of, shown, version)
        body = await self._store.answer(("page", shown), made, request.is_disconnected)
        return Response(body, media_type="text/html; charset=utf-8")

    async def _asset(self, request: Request) -> Response:
        _parameters(request)
        name = request.path_params["name"]
        if name not in self._assets:
            return await _not_found(request, None)
        return Response(self._assets[name], media_type=_KINDS[name.rpartition(".")[2]])

    async def _view(self, request: Request) -> Response:
        given = _parameters(request, "run", "run_b", "snapshot")
        if "run" not in given:
            raise BadRequestError("the parameter 'run' is missing", "?run=RUN")
        self._store.expect(given.get("snapshot"))
        name = request.path_params["name"]
        shown = Shown(given["run"], given.get("run_b"))

        def made(desk: Desk) -> bytes:
            view = desk.explored(shown).view(name)
            return encoded(self._failures.without_places(view))

        found = await self._store.answer((name, shown), made, request.is_disconnected)
        return Response(found, media_type=_JSON)

    async def _news(self, request: Request) -> Response:
        _parameters(request)
        return Response(encoded({"changed": await self._store.has_changed()}), media_type=_JSON)

    async def _sql(self, request: Request) -> Response:
        asked = await _body(request, _Typed)
        self._store.expect(asked.snapshot)
        work = partial(rows_of, asked.statement, asked.run)
        found = await self._store.statements.run(work, self._seconds, request.is_disconnected)
        return Response(found, media_type=_JSON)

    async def _complete(self, request: Request) -> Response:
        work = partial(offers_of, (await _body(request, _Begun)).text)
        found = await self._store.statements.run(work, _COMPLETION_SECONDS, request.is_disconnected)
        return Response(found, media_type=_JSON)


def _parameters(request: Request, *known: str) -> dict[str, str]:
    """The parameters of an address, each given once."""
    given = request.query_params.multi_items()
    for name, _ in given:
        if name not in known:
            raise BadRequestError(f"there is no parameter {name!r}", did_you_mean(name, known))
    if len(dict(given)) < len(given):
        raise BadRequestError("a parameter is given twice", "give it once")
    return {name: value for name, value in given if value != ""}


async def _body(request: Request, kind: type[Posted]) -> Posted:
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise BadRequestError(f"{where}: {first['msg']}") from error


async def _not_found(request: Request, error: Exception | None) -> Response:
    return Response(error_body("there is nothing at this address"), 404, media_type=_JSON)
