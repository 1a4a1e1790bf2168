"""From a request to its declared type: path and query, or path and body, where the body is JSON or a form.

What cannot be read is 400, what does not fit is 422 naming the field, and no value is repeated back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields as fields_of_dataclass
from dataclasses import is_dataclass
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from sojourn_contrib_azu_like.problems import Problem
from sojourn_contrib_azu_like.shapes import Field

FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = re.compile(r"application/(?:json|[a-z0-9!#$&^_.+-]+\+json)")
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_MOST_PAIRS: Final = 1000
_AT: Final = re.compile(r"(?:key in )?\$(.*)`", re.DOTALL)
_NAMED: Final = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`")


async def decode(request: Request, model: Any, fields: Mapping[str, Field], *, max_body: int) -> Any:
    """Return the request as *model*. Raises Problem: 400, 413, 415 or 422.

    Names in the path count before the body; the query counts only where there is no body to read.
    """
    strict = False
    if request.method in _BODILESS:
        values = _fold(_pairs(request.url.query), fields)
    else:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await _read(request, max_body)
        if kind == FORM or (not kind and not body):
            values = _fold(_pairs(_text(body)), fields)
        elif _JSON.fullmatch(kind):
            values, strict = _json(body), True
        else:
            raise Problem(415, f"send application/json or {FORM}")
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
