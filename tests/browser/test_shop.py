"""The shop in a real browser, on every store."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.shops import Shop

pytestmark = pytest.mark.browser

ON_STORES_THAT_LIST = pytest.mark.parametrize("shop", ["memory", "redis"], indirect=True)
ON_ONE_STORE = pytest.mark.parametrize("shop", ["memory"], indirect=True)
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605 Version/17.0 Safari/604.1"
PAGES = ("/", "/cart", "/signin", "/inside", "/try", "/nowhere")


def sign_in(page: Page, shop: Shop, user: str = "basho", password: str = "narrow-road") -> None:
    if not page.url.startswith(shop.url):
        page.goto(shop.url)
    page.get_by_label("Name").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def put_into_cart(page: Page, shop: Shop, thing: str = "Storm lantern") -> None:
    page.goto(shop.url)
    page.get_by_role("button", name=f"Add {thing} to the cart").click()


def token(page: Page) -> str:
    (cookie,) = page.context.cookies()
    return cookie["value"]


def is_signed_in(page: Page, shop: Shop) -> bool:
    page.goto(shop.url)
    return page.get_by_role("button", name="Sign out").count() == 1


def test_r17_a_visitor_who_only_looks_gets_no_cookie(shop: Shop, page: Page) -> None:
    for path in PAGES:
        answer = page.goto(shop.url + path)
        assert answer is not None
        assert "set-cookie" not in answer.all_headers()
    assert page.context.cookies() == []


def test_a_cart_filled_by_a_stranger_survives_signing_in(shop: Shop, page: Page) -> None:
    put_into_cart(page, shop)
    put_into_cart(page, shop, "Map of the pass")
    put_into_cart(page, shop)
    sign_in(page, shop)
    expect(page.get_by_text("Signed in as Bashō")).to_be_visible()
    page.get_by_role("link", name="Cart (3)").click()
    expect(page.get_by_role("row", name="Storm lantern")).to_contain_text("€ 78.00")
    expect(page.get_by_role("row", name="Together")).to_contain_text("€ 87.80")
    page.get_by_role("button", name="Remove Storm lantern").click()
    expect(page.get_by_role("row", name="Together")).to_contain_text("€ 9.80")
    page.get_by_role("button", name="Empty the cart").click()
    expect(page.get_by_text("Nothing here yet.")).to_be_visible()


def test_each_message_is_seen_once(shop: Shop, page: Page) -> None:
    put_into_cart(page, shop)
    expect(page.get_by_role("status")).to_have_text("Storm lantern: in your cart.")
    page.reload()
    expect(page.get_by_role("status")).to_have_count(0)
    sign_in(page, shop)
    expect(page.get_by_role("status")).to_have_text("Welcome, Bashō.")
    page.goto(shop.url + "/cart")
    expect(page.get_by_role("status")).to_have_count(0)


@ON_ONE_STORE
def test_a_message_waits_for_a_page_that_reads_it(shop: Shop, page: Page) -> None:
    put_into_cart(page, shop)
    page.context.request.post(
        shop.url + "/cart/clear", form={"csrf": _csrf(page)}, headers={"origin": shop.url}, max_redirects=0
    )
    page.goto(shop.url + "/healthz")
    page.goto(shop.url + "/inside")
    expect(page.get_by_role("status")).to_have_text("Your cart is empty.")


def _csrf(page: Page) -> str:
    return page.locator("input[name=csrf]").first.get_attribute("value") or ""


@ON_ONE_STORE
def test_a_wrong_password_signs_nobody_in_and_sets_no_cookie(shop: Shop, page: Page) -> None:
    sign_in(page, shop, password="wide-road")
    expect(page.get_by_role("alert")).to_have_text("Name and password do not fit together.")
    expect(page.get_by_label("Name")).to_have_value("basho")
    assert page.context.cookies() == []


def test_r13_signing_out_clears_the_session_and_says_so_once(shop: Shop, page: Page) -> None:
    put_into_cart(page, shop)
    sign_in(page, shop)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    expect(page.get_by_role("link", name="Cart", exact=True)).to_be_visible()
    assert not is_signed_in(page, shop)


def test_going_back_after_signing_out_shows_nothing_private(
    shop: Shop, open_page: OpenPage, remembering_browser: Browser
) -> None:
    page = open_page(of=remembering_browser, java_script_enabled=True)
    put_into_cart(page, shop)
    sign_in(page, shop)
    page.goto(shop.url + "/cart")
    expect(page.get_by_role("row", name="Storm lantern")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    page.go_back()
    assert page.url == shop.url + "/cart"
    expect(page.get_by_text("Nothing here yet.")).to_be_visible()
    expect(page.locator("body")).not_to_contain_text(re.compile("Bashō|lantern"))
    (reason,) = page.evaluate("performance.getEntriesByType('navigation')[0].notRestoredReasons.reasons")
    assert reason["reason"] == "response-cache-control-no-store"


def test_r8_signing_in_changes_the_token_and_the_old_one_opens_nothing(shop: Shop, open_page: OpenPage) -> None:
    page, thief = open_page(), open_page()
    put_into_cart(page, shop)
    stolen = page.context.cookies()
    sign_in(page, shop)
    assert token(page) != stolen[0]["value"]
    thief.context.add_cookies([{"name": stolen[0]["name"], "value": stolen[0]["value"], "url": shop.url}])
    assert not is_signed_in(thief, shop)


@ON_ONE_STORE
def test_r18_scripts_and_other_sites_do_not_get_the_cookie(shop: Shop, open_page: OpenPage) -> None:
    page = open_page(java_script_enabled=True)
    put_into_cart(page, shop)
    (cookie,) = page.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == ("sojourn", True, "Lax", "/")
    assert page.evaluate("document.cookie") == ""


@pytest.mark.parametrize("shop", ["cookie"], indirect=True)
def test_a_store_that_cannot_list_sessions_says_so(shop: Shop, page: Page) -> None:
    sign_in(page, shop)
    page.get_by_role("link", name="Sessions").click()
    expect(page.get_by_text("The store “cookie” cannot list sessions.")).to_be_visible()
    expect(page.get_by_role("button", name="Sign out everywhere else")).to_have_count(0)


@ON_STORES_THAT_LIST
def test_a_session_in_another_browser_is_ended(shop: Shop, open_page: OpenPage) -> None:
    here, there = open_page(), open_page(user_agent=IPHONE)
    sign_in(here, shop, "ibn", "seven-seas")
    sign_in(there, shop, "ibn", "seven-seas")
    here.goto(shop.url + "/sessions")
    expect(here.get_by_role("heading", name="this browser")).to_have_text(re.compile("Chrome on Linux"))
    here.get_by_role("button", name="End the session of Safari on iOS").click()
    expect(here.get_by_role("status")).to_have_text("That session has ended.")
    expect(here.get_by_role("button", name="End it")).to_have_count(0)
    assert not is_signed_in(there, shop)
    assert is_signed_in(here, shop)
    here.get_by_role("button", name="Sign out").click()


@ON_STORES_THAT_LIST
def test_r14_all_other_sessions_are_ended_at_once_and_nobody_elses(shop: Shop, open_page: OpenPage) -> None:
    here, *others = (open_page() for _ in range(3))
    stranger = open_page()
    for page in (here, *others):
        sign_in(page, shop, "ibn", "seven-seas")
    sign_in(stranger, shop, "ada", "wander-far")
    here.goto(shop.url + "/sessions")
    here.get_by_role("button", name="Sign out everywhere else").click()
    expect(here.get_by_role("status")).to_have_text("2 sessions ended.")
    assert [is_signed_in(page, shop) for page in (here, *others, stranger)] == [True, False, False, True]


@ON_STORES_THAT_LIST
def test_the_session_of_somebody_else_cannot_be_ended(shop: Shop, open_page: OpenPage) -> None:
    mine, theirs = open_page(), open_page()
    sign_in(theirs, shop, "ada", "wander-far")
    theirs.goto(shop.url + "/inside")
    id_ = theirs.locator(".plain dd code").first.inner_text()
    sign_in(mine, shop)
    answer = mine.context.request.post(shop.url + "/sessions/revoke", form={"csrf": _csrf(mine), "id": id_})
    assert "That session had already ended." in answer.text()
    assert is_signed_in(theirs, shop)


@ON_ONE_STORE
def test_r35_signing_in_leads_to_the_page_that_was_wanted(shop: Shop, page: Page) -> None:
    page.goto(shop.url + "/sessions?a=b&c")
    assert page.url.startswith(shop.url + "/signin?redirect_to=/sessions")
    sign_in(page, shop)
    assert page.url == shop.url + "/sessions?a=b&c"


@ON_ONE_STORE
@pytest.mark.parametrize("evil", ["//evil.example", "https://evil.example", "/%5Cevil.example", "javascript:alert(1)"])
def test_r35_signing_in_never_leads_to_another_site(shop: Shop, page: Page, evil: str) -> None:
    page.goto(f"{shop.url}/signin?redirect_to={evil}")
    sign_in(page, shop)
    assert page.url == shop.url + "/"


@ON_ONE_STORE
def test_a_page_for_the_staff_is_for_the_staff(shop: Shop, page: Page) -> None:
    sign_in(page, shop)
    answer = page.goto(shop.url + "/staff")
    assert answer is not None
    assert answer.status == 403
    expect(page.get_by_role("heading", name="Not allowed")).to_be_visible()
    page.goto(shop.url)
    page.get_by_role("button", name="Sign out").click()
    sign_in(page, shop, "ada", "wander-far")
    page.get_by_role("link", name="Staff").click()
    expect(page.get_by_role("heading", name="Behind the counter")).to_be_visible()


@ON_ONE_STORE
@pytest.mark.parametrize("has_session", [False, True])
def test_r34_a_form_on_another_site_changes_nothing(shop: Shop, page: Page, has_session: bool) -> None:
    if has_session:
        put_into_cart(page, shop, "Brass compass")
    form = f"<form method=post action='{shop.url}/cart/add'><input name=sku value=lantern><button>Win</button></form>"
    page.route("http://evil.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto("http://evil.example/")
    page.get_by_role("button", name="Win").click()
    expect(page.get_by_role("heading", name="Not allowed")).to_be_visible()
    page.goto(shop.url + "/cart")
    expect(page.get_by_role("row", name="Storm lantern")).to_have_count(0)
    expect(page.get_by_role("row", name="Brass compass")).to_have_count(int(has_session))


@ON_ONE_STORE
def test_r34_a_form_without_the_token_of_its_session_changes_nothing(shop: Shop, page: Page) -> None:
    put_into_cart(page, shop)
    answer = page.context.request.post(
        shop.url + "/cart/clear", form={"csrf": "x"}, headers={"origin": shop.url, "accept": "text/html"}
    )
    assert answer.status == 403
    assert "out of date" in answer.text()
    page.goto(shop.url)
    expect(page.get_by_role("link", name="Cart (1)")).to_be_visible()


@ON_ONE_STORE
def test_the_policy_of_the_pages_allows_what_they_do_and_no_page_loads_anything_foreign(
    shop: Shop, open_page: OpenPage
) -> None:
    page = open_page(java_script_enabled=True)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    foreign: list[str] = []
    page.on("request", lambda request: None if request.url.startswith(shop.url) else foreign.append(request.url))
    put_into_cart(page, shop)
    sign_in(page, shop, "ada", "wander-far")
    for path in ("/", "/cart", "/sessions", "/live", "/inside", "/try", "/staff"):
        answer = page.goto(shop.url + path)
        assert answer is not None
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert ("script-src 'self'" in policy) == (path == "/live")
        assert answer.headers["cache-control"] == "no-store"
        assert page.get_by_role("heading", level=1).count() == 1
    assert (complaints, foreign) == ([], [])


def test_the_panel_tells_what_was_written_and_why(shop: Shop, page: Page) -> None:
    page.goto(shop.url)
    panel = page.locator(".panel")
    expect(panel).to_contain_text(f"store: {shop.store}")
    expect(panel).to_contain_text("no cookie came, and nothing was worth one")
    put_into_cart(page, shop)
    expect(panel).to_contain_text("replace: version 1 became 2")
    expect(panel).to_contain_text("create: a new record, version 1")
    expect(panel).to_contain_text("data.cart changed; a message waits for the next page")
    page.reload()
    expect(panel).to_contain_text("nothing changed since it was loaded")
    sign_in(page, shop)
    expect(panel).to_contain_text("login() bound the session to the principal “basho”")


def focused(page: Page) -> str | None:
    """Return the name of what has the focus; needs scripts."""
    found: str | None = page.evaluate("document.activeElement.getAttribute('aria-label')")
    return found


@ON_ONE_STORE
def test_adding_to_the_cart_keeps_the_place_and_the_focus(shop: Shop, open_page: OpenPage) -> None:
    page = open_page(java_script_enabled=True, viewport={"width": 360, "height": 640})
    put_into_cart(page, shop, "Map of the pass")  # the last one on the shelf
    button = page.get_by_role("button", name="Add Map of the pass to the cart")
    expect(button).to_be_focused()
    expect(button).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Cart (2)")).to_be_visible()
    expect(button).to_be_focused()
    page.goto(shop.url + "/cart")
    assert focused(page) is None  # that was of the page after the form alone
    page.get_by_role("button", name="One more Map of the pass").click()
    expect(page.get_by_role("button", name="One more Map of the pass")).to_be_focused()
    page.goto(shop.url + "/try")
    button = page.get_by_role("button", name="Add a lantern meanwhile")
    button.click()
    expect(page.get_by_role("link", name="Cart (4)")).to_be_attached()
    expect(button).to_be_focused()
    expect(button).to_be_in_viewport()


@ON_ONE_STORE
def test_the_page_that_is_shown_is_in_sight_among_the_tabs_of_a_phone(shop: Shop, open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 360, "height": 640})
    page.goto(f"{shop.url}/try")
    tab, row = page.locator("nav a[aria-current]").bounding_box(), page.locator(".top nav").bounding_box()
    assert tab is not None
    assert row is not None
    fade = 25.6  # of the last of the row
    assert row["x"] <= tab["x"]
    assert tab["x"] + tab["width"] <= row["x"] + row["width"] - fade + 1


@ON_ONE_STORE
@pytest.mark.parametrize("user", [None, "ada"])
def test_the_header_is_one_row_on_a_phone(shop: Shop, open_page: OpenPage, user: str | None) -> None:
    page = open_page(java_script_enabled=True, viewport={"width": 360, "height": 640})
    put_into_cart(page, shop)
    if user is not None:
        sign_in(page, shop, user, "wander-far")
    page.goto(shop.url + "/cart")
    boxes = [page.locator(part).first.bounding_box() for part in (".brand", ".top nav", ".who")]
    middles = [box["y"] + box["height"] / 2 for box in boxes if box]
    assert len(middles) == 3
    assert max(middles) - min(middles) < 8
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    expect(page.get_by_role("link", name="Wayhouse")).to_be_visible()


@ON_ONE_STORE
def test_the_panel_is_closed_until_somebody_keeps_it_open(shop: Shop, page: Page) -> None:
    page.goto(shop.url)
    facts, summary = page.locator(".panel .facts").first, page.locator(".panel summary")
    expect(facts).to_be_hidden()
    summary.click()
    page.get_by_role("button", name="Keep this open on every page").click()
    expect(page.get_by_role("status")).to_have_text("The panel at the foot stays open.")
    for path in ("/cart", "/inside"):
        page.goto(shop.url + path)
        expect(facts).to_be_visible()
    page.get_by_role("button", name="Close this on every page").click()
    assert page.url == shop.url + "/inside"
    expect(facts).to_be_hidden()


@ON_ONE_STORE
def test_the_cart_leads_to_an_order_that_wants_a_sign_in(shop: Shop, page: Page) -> None:
    put_into_cart(page, shop)
    page.get_by_role("link", name="Cart (1)").click()
    page.get_by_role("link", name="Order", exact=True).click()
    assert page.url == shop.url + "/signin?redirect_to=/order"
    sign_in(page, shop)
    expect(page.get_by_role("heading", level=1)).to_have_text("Your order")
    page.get_by_role("button", name="Order, Bashō").click()
    expect(page.get_by_role("status")).to_contain_text("Ordered for € 39.00.")
    page.goto(shop.url + "/order")
    expect(page.get_by_text("There is nothing to order.")).to_be_visible()


@ON_STORES_THAT_LIST
def test_r14_the_live_page_of_another_browser_ends_with_its_session(shop: Shop, open_page: OpenPage) -> None:
    here, there = open_page(), open_page(user_agent=IPHONE, java_script_enabled=True)
    sign_in(here, shop, "ibn", "seven-seas")
    sign_in(there, shop, "ibn", "seven-seas")
    there.get_by_role("link", name="Live", exact=True).click()
    live = there.locator("#live")
    expect(live).to_have_attribute("data-state", "open")
    expect(live).to_contain_text("loaded: the cookie led to a live record that opened")
    here.get_by_role("link", name="Break it").click()
    here.get_by_role("button", name="End the session of Safari on iOS").click()
    expect(here.get_by_role("status")).to_contain_text("That session has ended.")
    expect(there.get_by_role("alert")).to_contain_text("This session has ended, and this page with it.")
    expect(live).to_contain_text("closed with 4401")
    there.goto(shop.url + "/try")
    expect(there.get_by_role("link", name="Sign in").first).to_be_visible()
    expect(there.locator("main")).to_contain_text("This browser: unknown")
    assert is_signed_in(here, shop)


@ON_ONE_STORE
def test_the_live_page_shows_what_another_tab_does_and_ends_when_that_signs_out(
    shop: Shop, open_page: OpenPage
) -> None:
    page = open_page(java_script_enabled=True)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    sign_in(page, shop)
    page.get_by_role("link", name="Live", exact=True).click()
    tab = page.context.new_page()
    tab.goto(shop.url)
    tab.get_by_role("button", name="Add Brass compass to the cart").click()
    things = page.locator("#live-things")
    expect(things).to_have_text("1")
    tab.goto(shop.url + "/try")
    tab.get_by_role("button", name="Change the secret").click()
    expect(tab.locator("#secret")).to_contain_text("The secret is a new one, and you are still here.")
    tab.get_by_role("button", name="Race two tabs").click()
    expect(things).to_have_text("3")
    tab.get_by_role("button", name="Stop the store").click()
    expect(page.locator("#live-outcome")).to_contain_text("unavailable")
    tab.get_by_role("button", name="Bring it back").click()
    expect(page.locator("#live-outcome")).to_contain_text("loaded")
    assert complaints == []
    tab.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("alert")).to_contain_text("This session has ended")
    expect(page.locator("#live")).to_have_attribute("data-state", "ended")


@ON_ONE_STORE
def test_the_live_page_says_that_it_needs_scripts(shop: Shop, page: Page) -> None:
    sign_in(page, shop)
    page.get_by_role("link", name="Live", exact=True).click()
    expect(page.get_by_text("This is the one page of the shop that needs a script")).to_be_visible()


@ON_ONE_STORE
def test_two_tabs_of_one_browser_race_on_one_cart_and_both_count(shop: Shop, page: Page) -> None:
    put_into_cart(page, shop, "Brass compass")
    page.goto(shop.url + "/try")
    opened: list[Page] = []
    page.context.on("page", lambda tab: opened.append(tab))  # told once the slow tab has its answer
    page.get_by_role("button", name="Open a slow tab").click()
    lanterns = 0
    while not opened:
        page.get_by_role("button", name="Add a lantern meanwhile").click()
        lanterns += 1
    status = opened[0].locator("#race").get_by_role("status")
    expect(status).to_contain_text("The other tab was faster, and both count")
    expect(opened[0].locator(".trail")).to_contain_text(
        "another request changed it at the same time, so both were merged"
    )
    page.goto(shop.url + "/cart")
    for thing, count in (("Brass compass", 1), ("Storm lantern", lanterns), ("Map of the pass", 1)):
        expect(page.get_by_role("row", name=thing).locator(".times")).to_have_text(str(count))


@ON_ONE_STORE
def test_a_newcomer_is_told_three_things_each_with_a_button(shop: Shop, page: Page) -> None:
    put_into_cart(page, shop)
    page.get_by_role("link", name="Three things that other session libraries get wrong").click()
    claims = page.locator(".wrongs a")
    expect(claims).to_have_text(
        ["The last tab wins", "An outage is an error of the application", "A logout ends one browser"]
    )

    def each_has_a_button(*buttons: str) -> None:
        for claim, words in zip(claims.all(), buttons, strict=True):
            target = page.locator(str(claim.get_attribute("href")))
            expect(target).to_contain_text("Elsewhere:")
            expect(target.locator("button, .button").first).to_have_text(words)

    each_has_a_button("Race two tabs", "Stop the store", "Sign in")
    page.locator("#revoke").get_by_role("link", name="Sign in").click()
    sign_in(page, shop)
    each_has_a_button("Race two tabs", "Stop the store", "Log a second browser out")
    page.get_by_role("button", name="Log a second browser out").click()
    expect(page.locator("#revoke").get_by_role("status")).to_contain_text("it opens nothing any more")
    expect(page.locator("#revoke .trail")).to_contain_text("unknown")


@ON_ONE_STORE
def test_a_store_is_stopped_and_brought_back_without_scripts(shop: Shop, page: Page) -> None:
    put_into_cart(page, shop)
    page.goto(shop.url + "/try")
    page.get_by_role("button", name="Stop the store").click()
    expect(page.locator(".trail")).to_contain_text("unavailable")
    page.get_by_role("link", name="See the cart answer 503").click()
    expect(page.get_by_role("heading", name="Back in a moment")).to_be_visible()
    page.get_by_role("link", name="To the switch that stopped the store").click()
    page.get_by_role("button", name="Bring it back").click()
    expect(page.get_by_role("status")).to_have_text("The store is back, and so is your session.")
    page.get_by_role("button", name="Race two tabs").click()
    expect(page.get_by_role("status")).to_have_text("Both count: your cart holds 3 things.")
    expect(page.locator(".trail")).to_contain_text("merged")


@ON_ONE_STORE
def test_what_does_not_fit_is_a_page_that_names_it(shop: Shop, page: Page) -> None:
    put_into_cart(page, shop)
    for form, sentence in (
        ({"sku": "moon"}, "not on our shelf"),
        ({"sku": "map", "count": "many"}, "count: expected int"),
    ):
        answer = page.context.request.post(
            shop.url + "/cart/add", form={**form, "csrf": _csrf(page)}, headers={"accept": "text/html"}
        )
        assert answer.status == 422
        assert sentence in answer.text()
