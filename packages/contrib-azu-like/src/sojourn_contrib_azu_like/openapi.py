"""What OpenAPI says of an endpoint, worked out from its types: parameters, body, answer and problems."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from types import UnionType
from typing import Any, Final, Union, cast, get_args, get_origin

import msgspec
from starlette.responses import Response

from sojourn_contrib_azu_like.answers import Empty, Html, Redirect, Text

_BODILESS: Final = frozenset({"GET", "DELETE"})
_IN_PATH: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_FORM: Final = "application/x-www-form-urlencoded"
_REF: Final = "#/$defs/"
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
    },
}
_PROBLEMS: Final = {400: "It cannot be read", 422: "It does not fit: `field` says what"}


def describe(model: Any, answer: Any, *, path: str, method: str, status: int) -> dict[str, Any]:
    """Return ``openapi_extra`` and ``responses`` for an endpoint of these types."""
    operation: dict[str, Any] = {}
    in_path = _IN_PATH.findall(path)
    properties: dict[str, Any] = {}
    if model is not None and model is not type(None):
        shape = _schema(model)
        properties, required = dict(shape.get("properties", {})), set[str](shape.get("required", ()))
        if method in _BODILESS:
            operation["parameters"] = [
                _parameter(name, "query", schema, required=name in required)
                for name, schema in properties.items()
                if name not in in_path
            ]
        else:
            body = {**shape, "properties": {name: one for name, one in properties.items() if name not in in_path}}
            body["required"] = sorted(required - set(in_path))
            content = {"application/json": {"schema": body}, _FORM: {"schema": body}}
            operation["requestBody"] = {"content": content, "required": bool(body["required"])}
    operation["parameters"] = [
        *(_parameter(name, "path", properties.get(name, {"type": "string"}), required=True) for name in in_path),
        *operation.get("parameters", ()),
    ]
    problems = _PROBLEMS if properties else {}
    responses: dict[int | str, dict[str, Any]] = {
        code: {"description": text, "content": {"application/problem+json": {"schema": _PROBLEM}}}
        for code, text in problems.items()
    }
    kinds = get_args(answer) if get_origin(answer) in {Union, UnionType} else (answer,)
    for kind in kinds:
        code, content = _answered(kind, status)
        found = responses.setdefault(code, {"description": HTTPStatus(code).phrase})
        found.setdefault("content", {}).update(content)
    first = min(code for code in responses if isinstance(code, int) and code < HTTPStatus.BAD_REQUEST)
    return {"openapi_extra": operation, "responses": responses, "status_code": first}


def _parameter(name: str, place: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _answered(kind: Any, status: int) -> tuple[int, dict[str, Any]]:
    """Return the status of an answer of that type, and its content."""
    if kind is Html:
        return HTTPStatus.OK, {"text/html": {"schema": {"type": "string"}}}
    if kind is Text:
        return HTTPStatus.OK, {"text/plain": {"schema": {"type": "string"}}}
    if kind is Redirect:
        return HTTPStatus.SEE_OTHER, {}
    if kind in {None, type(None), Empty}:
        return HTTPStatus.NO_CONTENT, {}
    if isinstance(kind, type) and issubclass(kind, Response):
        return status, {}
    return status, {"application/json": {"schema": _schema(kind)}}


def _schema(model: Any) -> dict[str, Any]:
    """Return the JSON schema of a type with everything that it refers to written out; what names itself is any value."""
    try:
        whole = msgspec.json.schema(model)
    except TypeError:
        return {}  # such as a class of the application's own that knows how to be sent
    definitions: dict[str, Any] = whole.pop("$defs", {})
    return cast("dict[str, Any]", _written_out(whole, definitions, ()))


def _written_out(value: Any, definitions: dict[str, Any], above: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_written_out(inner, definitions, above) for inner in cast("Sequence[Any]", value)]
    if not isinstance(value, dict):
        return value
    held = cast("dict[str, Any]", value)
    reference: str | None = held.get("$ref")
    if reference is None:
        return {name: _written_out(inner, definitions, above) for name, inner in held.items()}
    name = reference.removeprefix(_REF)
    return {} if name in above else _written_out(definitions[name], definitions, (*above, name))
