"""The site of the tests: the admin, and views that do one thing each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import aget_user, alogin, alogout, get_user_model, login, logout, update_session_auth_hash
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


def read(request: HttpRequest) -> HttpResponse:
    return JsonResponse(dict(request.session.items()))


async def aread(request: HttpRequest) -> HttpResponse:
    return JsonResponse(dict(await request.session.aitems()))


def put(request: HttpRequest) -> HttpResponse:
    request.session.update(request.GET.items())
    return HttpResponse(request.session.session_key)


async def aput(request: HttpRequest) -> HttpResponse:
    await request.session.aupdate(dict(request.GET.items()))
    return HttpResponse()


def nested(request: HttpRequest) -> HttpResponse:
    request.session.setdefault("cart", []).append("book")
    request.session.data.cart.append("book")
    return JsonResponse([request.session["cart"], request.session.data.cart], safe=False)


def behind(request: HttpRequest) -> HttpResponse:
    """Put another value into the dict itself, which Django does not notice."""
    request.session.get("stored")
    request.session._session["stored"] = request.GET["value"]
    return HttpResponse("")


def create(request: HttpRequest) -> HttpResponse:
    if not request.session.session_key:
        request.session.create()
    return HttpResponse(request.session.session_key)


def expire(request: HttpRequest) -> HttpResponse:
    value = request.GET["seconds"]
    request.session.set_expiry(None if value == "none" else int(value))
    return HttpResponse()


def _user(request: HttpRequest) -> Any:
    return get_user_model().objects.get(username=request.GET["name"])


def enter(request: HttpRequest) -> HttpResponse:
    login(request, _user(request))
    if "seconds" in request.GET:
        request.session.set_expiry(int(request.GET["seconds"]))
    return HttpResponse(request.session.principal)


async def aenter(request: HttpRequest) -> HttpResponse:
    await alogin(request, await get_user_model().objects.aget(username=request.GET["name"]))
    return HttpResponse(request.session.principal)


def leave(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse()


async def aleave(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse()


def whoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.user}")


async def awhoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{await aget_user(request)}")


def password(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    user.set_password(request.GET["new"])
    user.save()
    update_session_auth_hash(request, user)
    return HttpResponse()


def say(request: HttpRequest) -> HttpResponse:
    messages.info(request, request.GET["text"])
    return HttpResponse()


def hear(request: HttpRequest) -> HttpResponse:
    return JsonResponse([str(message) for message in messages.get_messages(request)], safe=False)


def bad_value(request: HttpRequest) -> HttpResponse:
    request.session["object"] = object()
    return HttpResponse()


def untouched(_: HttpRequest) -> HttpResponse:
    return HttpResponse()


def stream(request: HttpRequest) -> StreamingHttpResponse:
    request.session["before"] = 1

    def parts() -> Iterator[bytes]:
        yield b"1"
        request.session["after"] = [1]
        yield b"2"
        if "fail" in request.GET:
            raise ValueError("the stream has a bug")

    return StreamingHttpResponse(parts())


async def astream(request: HttpRequest) -> StreamingHttpResponse:
    await request.session.aset("before", 1)

    async def parts() -> AsyncIterator[bytes]:
        yield b"1"
        await request.session.aset("after", [1])
        yield b"2"
        if "fail" in request.GET:
            raise ValueError("the stream has a bug")

    return StreamingHttpResponse(parts())


VIEWS = (read, aread, put, aput, nested, behind, create, expire, enter, aenter, leave, aleave, whoami, awhoami)
MORE = (password, say, hear, bad_value, untouched, stream, astream)

urlpatterns = [path("admin/", admin.site.urls)]
urlpatterns += [path(view.__name__, csrf_exempt(view)) for view in (*VIEWS, *MORE)]
