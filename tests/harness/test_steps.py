"""The counter of steps agrees with what it counts, and sees what a clock would have seen."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.steps import Attempts, Counted

LINEAR = {
    "split": "def f(text):\n    return [part.strip() for part in text.split(',')]",
    "find on": "def f(text):\n    at = text.find(',')\n    while at >= 0:\n        at = text.find(',', at + 1)",
    "one class": "import re\ndef f(text):\n    return re.fullmatch(r'[a,]*b', text)",
}
QUADRATIC = {
    "cut off": "def f(text):\n    while text:\n        text = text[1:]",
    "find again": "def f(text):\n    for at in range(len(text)):\n        text.find('!', at)",
    "seek": "def f(text):\n    for at in range(len(text)):\n        '!' in text",
    "replace": "def f(text):\n    while ',' in text:\n        text = text.replace(',', '', 1)",
    "search everywhere": "import re\ndef f(text):\n    return re.search(r'[a,]+!', text)",
    "compiled": "import re\nP = re.compile(r'[a,]*[a,]*!')\ndef f(text):\n    return P.match(text)",
    "built again": "def f(text):\n    made = []\n    for each in text:\n        made.append(each)\n        ''.join(made)",
}


def growth(source: str) -> float:
    counted = Counted.source(source)
    function = counted.module.f
    return counted.of(function, "a," * 120) / counted.of(function, "a," * 15)


@pytest.mark.parametrize("source", LINEAR.values(), ids=LINEAR)
def test_linear_work_grows_with_its_input(source: str) -> None:
    assert growth(source) < 9


@pytest.mark.parametrize("source", QUADRATIC.values(), ids=QUADRATIC)
def test_quadratic_work_is_seen(source: str) -> None:
    assert growth(source) > 40


PATTERNS = [
    r"[ \t,]*([a-c]+)(?:=([a-c]+|\"(?:[a-c,]|\\[a-c])*\"))?[ \t]*(?=,|\Z)",
    r"\[([a-b:.]+)\](?::[0-9]{1,2})?|([0-9.]+)(?::[0-9]{1,2})?",
    r"(?:\A|; )a=([\w-]+)(?:;|\Z)",
    r"%(?![0-9A-F]{2})",
    r"(a+?|b)*c",
    r"(?i:A)b.",
    r"[^a\d]\W\s?",
]


@given(pattern=st.sampled_from(PATTERNS), text=st.text('abc=",\\[]:.; 09-%A\n', max_size=12))
def test_the_counting_matcher_finds_what_the_genuine_one_finds(pattern: str, text: str) -> None:
    compiled = re.compile(pattern)
    for start in range(len(text) + 1):
        found = compiled.match(text, start)
        assert Attempts(compiled, text).at(start) == (None if found is None else found.end())
        whole = compiled.fullmatch(text, start)
        assert Attempts(compiled, text).at(start, whole=True) == (None if whole is None else whole.end())


def test_every_character_of_a_class_is_compared_as_the_genuine_one_does() -> None:
    for pattern in (r"[!#-+\--:<-\[\]-~]", r"[^\s\w]", r"[\d\-x]", r"\D", r"."):
        compiled = re.compile(pattern)
        for character in string.printable + "äß \u0130":
            assert (Attempts(compiled, character).at(0) == 1) is bool(compiled.match(character)), (pattern, character)
