"""Count the steps that a function takes, so that a test can tell linear growth from quadratic growth without a clock.

A module is read again with every call, subscript and membership test in it counted: by how much text it looks at or
makes, as far as C code does the work, and by every attempt at a character for regular expressions.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from types import BuiltinFunctionType, MethodWrapperType, ModuleType
from typing import Any

Groups = dict[int, tuple[int, int]]
# these do not look at what is in their argument, or do it as it is asked for
_CONSTANT = {len, isinstance, type, id, iter, reversed, enumerate, zip, map, filter, getattr, setattr}
_PATTERN_METHODS = {"match", "fullmatch", "search", "sub", "finditer", "findall", "split"}


class Counted:
    """A module whose functions count their steps; `of` tells how many a call took."""

    def __init__(self, name: str) -> None:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        self._begin(name, Path(spec.origin).read_text(encoding="utf-8"))

    @classmethod
    def source(cls, text: str) -> Counted:
        """Return a module made of *text*."""
        made = cls.__new__(cls)
        made._begin("counted", text)
        return made

    def _begin(self, name: str, text: str) -> None:
        self.steps = 0
        tree = ast.fix_missing_locations(_Transformer().visit(ast.parse(text)))
        self.module: Any = ModuleType(name)
        self.module.__dict__.update(_called_=self._called, _taken_=self._taken, _sought_=self._sought)
        exec(compile(tree, name, "exec"), self.module.__dict__)  # the source of our own module

    def of(self, function: Callable[..., object], *arguments: object) -> int:
        """Return how many steps a call takes."""
        self.steps = 0
        function(*arguments)
        return self.steps

    def _called(self, function: Any, /, *arguments: Any, **named: Any) -> Any:
        self.steps += 1
        receiver = getattr(function, "__self__", None)
        if isinstance(receiver, re.Pattern) and function.__name__ in _PATTERN_METHODS:
            return self._tried(receiver, function.__name__, arguments)
        if receiver is re or getattr(function, "__module__", None) == "re":
            if function.__name__ in _PATTERN_METHODS:
                return self._tried(re.compile(arguments[0]), function.__name__, arguments[1:])
            return function(*arguments, **named)
        answer = function(*arguments, **named)
        if isinstance(receiver, str | bytes):
            self.steps += _looked_at(receiver, function.__name__, arguments, answer)
        elif isinstance(function, Hashable) and function in _CONSTANT:
            pass
        elif isinstance(function, BuiltinFunctionType | MethodWrapperType | type):
            self.steps += sum(map(_size, arguments)) + _size(answer)
        elif _is_foreign(function):
            # the standard library is taken to be linear in what it is given
            self.steps += sum(map(_size, arguments))
        return answer

    def _taken(self, value: Any, key: Any) -> Any:
        self.steps += 1
        answer = value[key]
        if isinstance(key, slice):
            self.steps += _size(answer)
        return answer

    def _sought(self, member: Any, container: Any) -> bool:
        self.steps += 1
        if isinstance(container, str | bytes | list | tuple):
            self.steps += len(container)
        return member in container

    def _tried(self, pattern: re.Pattern[str], method: str, arguments: Sequence[Any]) -> Any:
        """Count the attempts of a regular expression and return what the genuine one returns."""
        text, *rest = arguments[1:] if method == "sub" else arguments
        start = rest[0] if rest and method in {"match", "fullmatch", "search"} else 0
        attempts = Attempts(pattern, text)
        if method in {"match", "fullmatch"}:
            attempts.at(start, whole=method == "fullmatch")
        else:
            while start <= len(text):
                end = attempts.at(start)
                if end is not None and method == "search":
                    break
                start = max(end or 0, start + 1)
        self.steps += attempts.made
        return getattr(pattern, method)(*arguments)


class Attempts:
    """A backtracking matcher, as `re` is one, that counts how often it compares a character."""

    def __init__(self, pattern: re.Pattern[str], text: str) -> None:
        self.made = 0
        self._flags = pattern.flags
        self._tree = parser.parse(pattern.pattern, pattern.flags)
        self._text = text

    def at(self, start: int, *, whole: bool = False) -> int | None:
        """Return where a match that begins at *start* ends, or None."""
        for end, _ in self._sequence(list(self._tree), 0, start, {}):
            if not whole or end == len(self._text):
                return end
        return None

    def _sequence(self, nodes: list[Any], number: int, at: int, groups: Groups) -> Iterator[tuple[int, Groups]]:
        if number == len(nodes):
            yield at, groups
            return
        operation, argument = nodes[number]
        for end, found in self._node(operation, argument, at, groups):
            yield from self._sequence(nodes, number + 1, end, found)

    def _node(self, operation: Any, argument: Any, at: int, groups: Groups) -> Iterator[tuple[int, Groups]]:
        if operation in {ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN}:
            if self._is_character(operation, argument, at):
                yield at + 1, groups
        elif operation in {ops.MAX_REPEAT, ops.MIN_REPEAT}:
            least, most, inner = argument
            nodes = list(inner)
            if operation is ops.MAX_REPEAT and len(nodes) == 1 and nodes[0][0] in {ops.LITERAL, ops.IN, ops.ANY}:
                end = at
                single, expected = nodes[0]
                while end - at < most and self._is_character(single, expected, end):
                    end += 1
                for each in range(end, at + least - 1, -1):
                    self.made += 1
                    yield each, groups
            else:
                yield from self._repeat(nodes, least, most, operation is ops.MIN_REPEAT, at, groups)
        elif operation is ops.SUBPATTERN:
            group, *_, inner = argument
            for end, found in self._sequence(list(inner), 0, at, groups):
                yield end, found if group is None else {**found, group: (at, end)}
        elif operation is ops.BRANCH:
            for inner in argument[1]:
                yield from self._sequence(list(inner), 0, at, groups)
        elif operation is ops.AT:
            self.made += 1
            if at == (0 if argument in {ops.AT_BEGINNING, ops.AT_BEGINNING_STRING} else len(self._text)):
                yield at, groups
        elif operation in {ops.ASSERT, ops.ASSERT_NOT} and argument[0] > 0:
            is_there = any(True for _ in self._sequence(list(argument[1]), 0, at, groups))
            if is_there is (operation is ops.ASSERT):
                yield at, groups
        else:
            raise NotImplementedError(f"count the attempts of {operation} too")

    def _repeat(
        self, nodes: list[Any], least: int, most: int, is_lazy: bool, at: int, groups: Groups
    ) -> Iterator[tuple[int, Groups]]:
        if is_lazy and least <= 0:
            yield at, groups
        if most > 0:
            for end, found in self._sequence(nodes, 0, at, groups):
                if end > at or least > 0:
                    yield from self._repeat(nodes, least - 1, most - 1, is_lazy, end, found)
        if not is_lazy and least <= 0:
            yield at, groups

    def _is_character(self, operation: Any, argument: Any, at: int) -> bool:
        self.made += 1
        if at >= len(self._text):
            return False
        character = self._text[at]
        if operation is ops.ANY:
            return bool(self._flags & re.DOTALL) or character != "\n"
        if operation is ops.IN:
            members = [(kind, value) for kind, value in argument if kind is not ops.NEGATE]
            return any(self._is_in(kind, value, character) for kind, value in members) is (
                len(members) == len(argument)
            )
        return self._is_in(ops.LITERAL, argument, character) is (operation is ops.LITERAL)

    def _is_in(self, operation: Any, argument: Any, character: str) -> bool:
        forms = {character}
        if self._flags & re.IGNORECASE:
            forms |= {character.lower(), character.upper()}
        if operation is ops.LITERAL:
            return any(ord(form) == argument for form in forms if len(form) == 1)
        if operation is ops.RANGE:
            return any(argument[0] <= ord(form) <= argument[1] for form in forms if len(form) == 1)
        escape = {
            ops.CATEGORY_DIGIT: r"\d",
            ops.CATEGORY_NOT_DIGIT: r"\D",
            ops.CATEGORY_SPACE: r"\s",
            ops.CATEGORY_NOT_SPACE: r"\S",
            ops.CATEGORY_WORD: r"\w",
            ops.CATEGORY_NOT_WORD: r"\W",
        }[argument]
        return re.match(escape, character, self._flags & re.ASCII) is not None


class _Transformer(ast.NodeTransformer):
    """Hand every call, every value[key] and every `in` to the counter."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "super":
            return node
        return ast.Call(ast.Name("_called_", ast.Load()), [node.func, *node.args], node.keywords)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load) or isinstance(node.slice, ast.Tuple):
            return node
        key: ast.expr = node.slice
        if isinstance(key, ast.Slice):
            parts = [part or ast.Constant(None) for part in (key.lower, key.upper, key.step)]
            key = ast.Call(ast.Name("slice", ast.Load()), parts, [])
        return ast.Call(ast.Name("_taken_", ast.Load()), [node.value, key], [])

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn):
            found = ast.Call(ast.Name("_sought_", ast.Load()), [node.left, node.comparators[0]], [])
            return found if isinstance(node.ops[0], ast.In) else ast.UnaryOp(ast.Not(), found)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)  # an annotation is no work
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        return node


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _is_foreign(function: Any) -> bool:
    return not str(getattr(function, "__module__", "")).startswith(("sojourn", "counted"))


def _looked_at(receiver: str | bytes, method: str, arguments: Sequence[Any], answer: Any) -> int:
    """Return how much of its text a method looks at, and how much it makes."""
    if method in {"find", "index"}:
        start: int = arguments[1] if len(arguments) > 1 else 0
        return max(0, (len(receiver) if answer < 0 else int(answer)) - start)
    if method in {"rfind", "rindex"}:
        start = arguments[1] if len(arguments) > 1 else 0
        end: int = arguments[2] if len(arguments) > 2 else len(receiver)
        return max(0, end - (start if answer < 0 else int(answer)))
    if method in {"startswith", "endswith"}:
        return max(map(len, arguments[0] if isinstance(arguments[0], tuple) else arguments[:1]))
    if method == "join":
        return len(answer)
    return len(receiver) + _size(answer)
