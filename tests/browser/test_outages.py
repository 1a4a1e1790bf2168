"""What a visitor of the shop sees when the shop or its store stops and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.shops import Shop
from tests.browser.test_shop import put_into_cart, sign_in
from tests.servers import RedisServer

pytestmark = pytest.mark.browser


@pytest.fixture
def redis_shop(redis_server: RedisServer, tmp_path: Path):
    with Shop(tmp_path, SOJOURN_STORE="redis", SOJOURN_REDIS_URL=redis_server.url) as shop:
        yield shop
    assert "Traceback" not in shop.log.read_text()


def test_sessions_in_redis_survive_a_restart_of_the_shop(redis_shop: Shop, page: Page) -> None:
    _restart(redis_shop, page)


def test_sessions_in_cookies_survive_a_restart_of_the_shop(tmp_path: Path, page: Page) -> None:
    with Shop(tmp_path, SOJOURN_STORE="cookie") as shop:
        _restart(shop, page)


def _restart(shop: Shop, page: Page) -> None:
    put_into_cart(page, shop)
    sign_in(page, shop)
    shop.restart()
    page.goto(shop.url + "/cart")
    expect(page.get_by_text("Signed in as Bashō")).to_be_visible()
    expect(page.get_by_role("row", name="Storm lantern")).to_be_visible()


def test_f1_an_outage_is_a_readable_page_and_the_session_is_there_when_it_ends(
    redis_shop: Shop, redis_server: RedisServer, page: Page
) -> None:
    put_into_cart(page, redis_shop)
    sign_in(page, redis_shop)
    before = page.context.cookies()
    redis_server.freeze()
    try:
        answer = page.goto(redis_shop.url + "/cart")
        assert answer is not None
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        expect(page.get_by_role("heading", name="Back in a moment")).to_be_visible()
        health = page.goto(redis_shop.url + "/healthz")
        assert health is not None
        assert health.status == 200
    finally:
        redis_server.thaw()
    assert page.context.cookies() == before
    page.goto(redis_shop.url + "/cart")
    expect(page.get_by_text("Signed in as Bashō")).to_be_visible()


def test_f9_a_sign_out_during_an_outage_does_not_pretend(
    redis_shop: Shop, redis_server: RedisServer, page: Page
) -> None:
    sign_in(page, redis_shop)
    redis_server.freeze()
    try:
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Back in a moment")).to_be_visible()
    finally:
        redis_server.thaw()
    page.goto(redis_shop.url)
    expect(page.get_by_text("Signed in as Bashō")).to_be_visible()
