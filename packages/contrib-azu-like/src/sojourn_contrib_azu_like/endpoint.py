"""An endpoint: a class with a request type, a response type and one method, ``call``.

``call`` runs only with a request that fits, and on an instance of its own for every request.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Generic, Literal, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sojourn.errors import ConfigurationError
from sojourn_contrib_azu_like.answers import respond
from sojourn_contrib_azu_like.decoding import decode
from sojourn_contrib_azu_like.problems import Problem
from sojourn_contrib_azu_like.shapes import Field, fields_of, parameters_of

Req = TypeVar("Req")
Res = TypeVar("Res")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

_NO_FIELDS: Mapping[str, Field] = {}
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Endpoint(ABC, Generic[Req, Res]):
    """Answer one method on one path.

        class ShowBook(Endpoint[BookId, Book], path="/books/{id}"):
            async def call(self) -> Book:
                return await find(self.params.id)

    *Req* is a dataclass, msgspec.Struct, TypedDict or attrs class, or None for an endpoint that takes nothing; *Res*
    is an Answer, a Starlette response, or data to be sent as JSON. A class without *path* is there to be inherited.
    """

    path: ClassVar[str | None] = None
    method: ClassVar[Method] = "GET"
    status: int = HTTPStatus.OK
    """The status of an answer in JSON."""
    max_body: ClassVar[int] = 1 << 20
    """The largest body in bytes; more is 413."""
    _model: ClassVar[Any] = None
    _fields: ClassVar[Mapping[str, Field]] = _NO_FIELDS

    params: Req
    """The request, decoded; set before ``call``."""

    def __init_subclass__(cls, *, path: str | None = None, method: Method = "GET", **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.path, cls.method = path, method
        if path is None:
            return
        if not path.startswith("/"):
            msg = f"the path of {cls.__qualname__} is {path!r}; let it begin with a slash"
            raise ConfigurationError(msg)
        if method not in _METHODS:
            msg = f"the method of {cls.__qualname__} is {method!r}; use one of {', '.join(_METHODS)}"
            raise ConfigurationError(msg)
        parameters = parameters_of(cls, Endpoint)
        if parameters is None:
            msg = f"{cls.__qualname__} has a path but no types; inherit from Endpoint[Request, Response]"
            raise ConfigurationError(msg)
        cls._model = parameters[0]
        cls._fields = _NO_FIELDS if _is_none(cls._model) else fields_of(cls._model)

    def __init__(self, request: Request) -> None:
        self.request = request

    @abstractmethod
    async def call(self) -> Res:
        """Make the answer from ``params``. Raise Problem to end the request otherwise."""

    async def before(self) -> None:
        """Run before the request is decoded; raise Problem here to refuse it whatever it holds."""

    def refuse(self, problem: Problem) -> Response:
        """Return the answer to a request that a Problem ended; override it to show a page."""
        return problem.as_response()

    async def respond(self) -> Response:
        """Take the request through ``before``, decoding and ``call``."""
        try:
            await self.before()
            if not _is_none(self._model):
                self.params = await decode(self.request, self._model, self._fields, max_body=self.max_body)
            answer = await self.call()
        except Problem as problem:
            return self.refuse(problem)
        return respond(answer, self.status)


def routes(*endpoints: type[Endpoint[Any, Any]]) -> list[Route]:
    """Turn endpoints into Starlette's routes, in the order given; hand them to ``Starlette(routes=...)`` or a Mount.

    Raises ConfigurationError for a class that cannot answer: one without a path, without ``call``, or one that
    needs the session and was not told of a session manager.
    """
    return [_route(endpoint) for endpoint in endpoints]


def _route(endpoint: type[Endpoint[Any, Any]]) -> Route:
    name = endpoint.__qualname__
    if endpoint.path is None:
        msg = f"{name} has no path: write class {name}(Endpoint[...], path=...)"
        raise ConfigurationError(msg)
    if inspect.isabstract(endpoint):
        msg = f"{name} cannot answer: define {', '.join(sorted(endpoint.__abstractmethods__))}"
        raise ConfigurationError(msg)
    missing = getattr(endpoint, "missing_parts", None)
    if missing is not None and (parts := missing()):
        msg = f"{name} needs {', '.join(parts)}: set it in the class or in one that it inherits from"
        raise ConfigurationError(msg)
    return Route(endpoint.path, _handler(endpoint), methods=[endpoint.method], name=endpoint.__name__)


def _handler(endpoint: type[Endpoint[Any, Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        return await endpoint(request).respond()

    return handle


def _is_none(model: object) -> bool:
    return model is None or model is type(None)
