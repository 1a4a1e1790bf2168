"""An endpoint: a class with a request type, a response type and one method, ``call``.

``call`` runs only with a request that fits, and on an instance of its own for every request. The request is its path and
query, or its path and body, where the body is JSON or a form. What cannot be read is 400, what does not fit is 422 naming
the field, and no value is repeated back.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import fields as fields_of_dataclass
from dataclasses import is_dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar, cast
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from sojourn.errors import ConfigurationError
from sojourn_contrib_azu_like.answers import respond
from sojourn_contrib_azu_like.channel import Channel
from sojourn_contrib_azu_like.openapi import describe
from sojourn_contrib_azu_like.problems import Problem
from sojourn_contrib_azu_like.shapes import Field, fields_of, parameters_of

Req = TypeVar("Req")
Res = TypeVar("Res")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

_NO_FIELDS: Mapping[str, Field] = {}
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = re.compile(r"application/(?:json|[a-z0-9!#$&^_.+-]+\+json)")
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_MOST_PAIRS: Final = 1000
_AT: Final = re.compile(r"(?:key in )?\$(.*)`", re.DOTALL)
_NAMED: Final = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`")


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
    _answer: ClassVar[Any] = None
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
        cls._model, cls._answer = parameters
        cls._fields = _NO_FIELDS if _is_none(cls._model) else fields_of(cls._model)

    def __init__(self, request: Request) -> None:
        self.request = request
        self.connection: HTTPConnection = request

    @abstractmethod
    async def call(self) -> Res:
        """Make the answer from ``params``. Raise Problem to end the request otherwise."""

    async def before(self) -> None:
        """Run before the request is decoded; raise Problem here to refuse it whatever it holds."""

    def refuse(self, problem: Problem) -> Response:
        """Return the answer to a request that a Problem ended; override it to show a page."""
        return problem.as_response()

    @classmethod
    def operation(cls) -> dict[str, Any]:
        """Return this endpoint as keywords for FastAPI: ``app.add_api_route(**ShowBook.operation())``.

        OpenAPI then has the parameters or the body of the request, the answer, and the problems.
        """
        return {
            "path": require_complete(cls),
            "endpoint": _handler(cls),
            "methods": [cls.method],
            "name": cls.__name__,
            "operation_id": cls.__name__,
            "response_model": None,
            **describe(cls._model, cls._answer, path=cls.path or "", method=cls.method, status=cls.status),
            "description": inspect.cleandoc(cls.__doc__) if "__doc__" in vars(cls) and cls.__doc__ else "",
        }

    async def respond(self) -> Response:
        """Take the request through ``before``, decoding and ``call``."""
        try:
            await self.before()
            if not _is_none(self._model):
                self.params = await _decode(self.request, self._model, self._fields, max_body=self.max_body)
            answer = await self.call()
        except Problem as problem:
            return self.refuse(problem)
        return respond(answer, self.status)


def routes(*parts: type[Endpoint[Any, Any] | Channel[Any, Any]]) -> list[BaseRoute]:
    """Turn endpoints and channels into Starlette's routes, in the order given; hand them to ``Starlette(routes=...)``.

    Raises ConfigurationError for a class that cannot answer: one without a path, without ``call``, or one that
    needs the session and was not told of a session manager.
    """
    return [_route(part) for part in parts]


def application(*parts: type[Endpoint[Any, Any] | Channel[Any, Any]]) -> ASGIApp:
    """Return endpoints and channels as one ASGI application, to be mounted in whatever framework."""
    return _Application(Router(routes=routes(*parts)))


class _Application:
    """The endpoints, which find their path also where Litestar mounts them: that cuts the path and ends it with a slash."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "litestar_app" in scope and "raw_path" in scope:
            whole = unquote(scope["raw_path"].decode("latin-1"))
            inner = "/" + scope["path"].lstrip("/")
            if not whole.endswith("/"):
                inner = inner.rstrip("/")
            root = whole.removesuffix(inner)
            # In the same scope, or the middleware outside would not see what is put into it.
            scope.update(path=root + (inner or "/"), root_path=root)
        await self.app(scope, receive, send)


def _route(part: type[Endpoint[Any, Any] | Channel[Any, Any]]) -> BaseRoute:
    path = require_complete(part)
    if issubclass(part, Channel):
        return WebSocketRoute(path, part.endpoint(), name=part.__name__)
    return Route(path, _handler(part), methods=[part.method], name=part.__name__)


def require_complete(part: type[Any]) -> str:
    """Return the path of an endpoint or channel; raise ConfigurationError for one that cannot answer."""
    name, path = part.__qualname__, part.path
    if path is None:
        kind = "Channel" if issubclass(part, Channel) else "Endpoint"
        msg = f"{name} has no path: write class {name}({kind}[...], path=...)"
        raise ConfigurationError(msg)
    if inspect.isabstract(part):
        msg = f"{name} cannot answer: define {', '.join(sorted(part.__abstractmethods__))}"
        raise ConfigurationError(msg)
    missing = getattr(part, "missing_parts", None)
    if missing is not None and (parts := missing()):
        msg = f"{name} needs {' and '.join(parts)}: set it in the class or in one that it inherits from"
        raise ConfigurationError(msg)
    return cast("str", path)


def _handler(endpoint: type[Endpoint[Any, Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        return await endpoint(request).respond()

    return handle


def _is_none(model: object) -> bool:
    return model is None or model is type(None)


# -- from a request to its declared type ---------------------------------------------------------------------------


async def _decode(request: Request, model: Any, fields: Mapping[str, Field], *, max_body: int) -> Any:
    """Return the request as *model*. Raises Problem: 400, 413, 415 or 422.

    Names in the path count before the body; the query counts only where there is no body to read.
    """
    strict = False
    if request.method in _BODILESS:
        values = _fold(_pairs(request.url.query), fields)
    else:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await _read(request, max_body)
        if kind == _FORM or (not kind and not body):
            values = _fold(_pairs(_text(body)), fields)
        elif _JSON.fullmatch(kind):
            values, strict = _json(body), True
        else:
            raise Problem(415, f"send application/json or {_FORM}")
    values.update(_path(request.path_params, fields, strict=strict))
    try:
        made = msgspec.convert(values, model, strict=strict)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    _complete(made)
    return made


def _complete(value: object) -> None:
    """Give dataclass and attrs objects their defaults as attributes of their own; msgspec encodes only those."""
    if isinstance(value, list | tuple | set | frozenset):
        parts: Iterable[object] = cast("Iterable[object]", value)
    elif isinstance(value, dict):
        parts = cast("dict[object, object]", value).values()
    elif isinstance(value, msgspec.Struct):
        parts = [getattr(value, name) for name in value.__struct_fields__]
    else:
        kind = type(value)
        declared = fields_of_dataclass(kind) if is_dataclass(kind) else getattr(kind, "__attrs_attrs__", ())
        own = {field.name: getattr(value, field.name) for field in declared}
        if hasattr(value, "__dict__"):
            value.__dict__.update(own)
        parts = own.values()
    for part in parts:
        _complete(part)


async def _read(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Problem(413, f"the body is larger than {limit} bytes")
    return bytes(body)


def _json(body: bytes) -> dict[str, Any]:
    try:
        values = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem(400, "the body is not JSON") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None
    if not isinstance(values, dict):
        raise Problem(422, "the body must be an object")
    return cast("dict[str, Any]", values)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Problem(400, "the form is not UTF-8") from None


def _pairs(text: str) -> Sequence[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PAIRS)
    except UnicodeDecodeError:
        raise Problem(400, "the form or query is not UTF-8") from None
    except ValueError:
        raise Problem(400, f"the form or query has more than {_MOST_PAIRS} fields") from None


def _fold(pairs: Sequence[tuple[str, str]], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Gather what was given several times, where the field takes it; an empty number or date is one not given."""
    values: dict[str, Any] = {}
    for name, text in pairs:
        field = fields.get(name)
        if field is None:
            values[name] = text  # ignored, or refused by a type that forbids unknown fields
        elif field.takes_many:
            values.setdefault(name, []).append(text)
        elif not text and not field.takes_text:
            continue
        elif name in values:
            raise Problem(422, f"{name}: give it once", field=name)
        else:
            values[name] = text
    return values


def _path(parameters: Mapping[str, Any], fields: Mapping[str, Field], *, strict: bool) -> dict[str, Any]:
    """Return the path's part; beside a JSON body its texts still are read as what their fields take."""
    values = {name: value for name, value in parameters.items() if name in fields}
    if not strict:
        return values
    for name, value in values.items():
        try:
            values[name] = msgspec.convert(value, fields[name].annotation, strict=False)
        except msgspec.ValidationError:
            raise Problem(422, f"{name}: does not fit", field=name) from None
    return values


def _invalid(message: str) -> Problem:
    """Make the problem from msgspec's sentence, in which only names and types may stand, no value."""
    text, _, tail = message.rpartition(" - at `")
    at = _AT.fullmatch(tail)
    path = at[1].removeprefix(".") if at else ""
    text = text if at else message
    named = _NAMED.fullmatch(text)
    if named:
        path = f"{path}.{named[2]}" if path else named[2]
        reason = "is missing" if named[1].startswith("missing") else "is not known here"
    elif text.startswith("Expected "):
        reason = "expected " + text[len("Expected ") :].partition(", got ")[0].replace("`", "")
    elif text.startswith(("Invalid ", "Object ")):
        reason = "does not fit"
    else:
        reason = text  # the request type's own words, from its __post_init__
    return Problem(422, f"{path}: {reason}" if path else reason, field=path or None)
