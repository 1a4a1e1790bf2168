from __future__ import annotations

from release import reference
from tests.docs.pages import page


def test_the_page_is_what_is_written_from_the_code() -> None:
    assert page("docs/reference.md") == reference.page(), "run ./dev reference"
