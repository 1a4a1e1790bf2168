"""The quickstart of each framework as files, with a page to log in and out added, as a reader would go on."""

from __future__ import annotations

from tests.docs.pages import blocks, page

TEXTS = '''
LOG_IN = """<form method="post" action="/in"><label>Name <input name="name"></label><button>Log in</button></form>"""
LOG_OUT = """<p>Hello {name}</p><form method="post" action="/out">
<input type="hidden" name="csrf_token" value="{csrf}"><button>Log out</button></form>"""
'''

FASTAPI = """
from fastapi import Form
from fastapi.responses import HTMLResponse, RedirectResponse
from sojourn_contrib_fastapi import require_csrf
from texts import LOG_IN, LOG_OUT


@app.get("/account")
async def account(session: CurrentSession) -> HTMLResponse:
    if session.principal is None:
        return HTMLResponse(LOG_IN)
    return HTMLResponse(LOG_OUT.format(name=session.data.name, csrf=session.csrf_token()))


@app.post("/in")
async def log_in(session: CurrentSession, name: Annotated[str, Form()]) -> RedirectResponse:
    session.login(name)
    session.data.name = name.title()
    return RedirectResponse("/account", 303)


@app.post("/out", dependencies=[Depends(require_csrf(sessions))])
async def log_out(session: CurrentSession) -> RedirectResponse:
    session.logout()
    return RedirectResponse("/account", 303)
"""

LITESTAR = """
from typing import Annotated, Any

from litestar import MediaType
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import Redirect
from sojourn_contrib_litestar import require_csrf
from texts import LOG_IN, LOG_OUT


@get("/account", media_type=MediaType.HTML)
async def account(session: CurrentSession[Visitor]) -> str:
    if session.principal is None:
        return LOG_IN
    return LOG_OUT.format(name=session.data.name, csrf=session.csrf_token())


@post("/in", status_code=303)
async def log_in(
    session: CurrentSession[Visitor],
    data: Annotated[dict[str, Any], Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Redirect:
    session.login(data["name"])
    session.data.name = data["name"].title()
    return Redirect("/account", status_code=303)


@post("/out", guards=[require_csrf(sessions)], status_code=303)
async def log_out(session: CurrentSession[Visitor]) -> Redirect:
    session.logout()
    return Redirect("/account", status_code=303)


for handler in (account, log_in, log_out):
    app.register(handler)
"""

AIOHTTP = """
from sojourn_contrib_aiohttp import get_session
from texts import LOG_IN, LOG_OUT


async def account(request: web.Request) -> web.Response:
    session = await get_session(request)
    if session.principal is None:
        return web.Response(text=LOG_IN, content_type="text/html")
    page = LOG_OUT.format(name=session.data.name, csrf=session.csrf_token())
    return web.Response(text=page, content_type="text/html")


async def log_in(request: web.Request) -> web.Response:
    session, form = await get_session(request), await request.post()
    session.login(form["name"])
    session.data.name = form["name"].title()
    raise web.HTTPSeeOther("/account")


async def log_out(request: web.Request) -> web.Response:
    session, form = await get_session(request), await request.post()
    if not session.verify_csrf(form["csrf_token"]):
        raise web.HTTPForbidden
    session.logout()
    raise web.HTTPSeeOther("/account")


app.add_routes([web.get("/account", account), web.post("/in", log_in), web.post("/out", log_out)])


def make(_: list[str]) -> web.Application:
    return app
"""

FLASK = """
import flask
from authlib.integrations.flask_client import OAuth
from flask import Response, redirect, stream_with_context
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from texts import LOG_IN, LOG_OUT

app.secret_key = "of Authlib's and Flask-Login's own cookies, of which there are none"
LoginManager(app).user_loader(lambda name: User(name))
oauth = OAuth(app)
oauth.register(
    "provider",
    client_id="id",
    client_secret="secret",
    authorize_url="https://provider.example/authorize",
    access_token_url="https://provider.example/token",
)


class User(UserMixin):
    def __init__(self, name: str) -> None:
        self.id = name


@app.get("/account")
def account():
    if not current_user.is_authenticated:
        return LOG_IN
    return LOG_OUT.format(name=sojourn.session.data.name, csrf=sojourn.session.csrf_token())


def enter(name):
    login_user(User(name))
    sojourn.session.data.name = name.title()
    return redirect("/account")


@app.post("/in")
def log_in():
    return enter(request.form["name"])


@app.post("/out")
@login_required
def log_out():
    if not sojourn.session.verify_csrf(request.form["csrf_token"]):
        return "", 403
    logout_user()
    return redirect("/account")


@app.get("/with")
def with_provider():
    return oauth.provider.authorize_redirect("http://localhost/callback")


@app.get("/callback")
def callback():
    return enter(oauth.provider.authorize_access_token()["sub"])


@app.get("/stream")
def stream():
    def parts():
        yield flask.session.setdefault("color", "blue")
        flask.session["color"] = "green"

    return Response(stream_with_context(parts()))
"""

# What stands in main.py before Django is set up, and after.
ADMIN = """
settings.INSTALLED_APPS.append("django.contrib.admin")
settings.ALLOWED_HOSTS.append("testserver")
settings.STATIC_URL = "static/"
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
settings.TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
"""
DJANGO = """
from django.contrib import admin

urlpatterns.append(path("admin/", admin.site.urls))


def prepare():
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("check", fail_level="WARNING", verbosity=0)
    call_command("migrate", verbosity=0)
    User.objects.create_superuser("ada", "ada@example.com", "narrow-road")
"""


def complete(framework: str) -> str:
    """Return the file of the framework's page."""
    (found,) = blocks(page(f"docs/quickstarts/{framework.lower()}.md"))
    return found


def files(framework: str) -> dict[str, str]:
    """Return the files of a site by their names: `shop.py` has the application `app`."""
    found = complete(framework)
    if framework == "Django":
        before, made, after = found.partition("sessions = from_settings(Visitor)")
        return {"shop": f"{before}{ADMIN}{made}{after}{DJANGO}"}
    pages = {"FastAPI": FASTAPI, "Litestar": LITESTAR, "aiohttp": AIOHTTP, "Flask": FLASK}[framework]
    return {"texts": TEXTS, "shop": f"{found}\n{pages}"}
