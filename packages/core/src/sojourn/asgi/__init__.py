"""The middlewares for ASGI applications: Starlette, FastAPI, Litestar, Quart, plain ASGI."""

from sojourn.asgi.authentication import AuthenticationMiddleware
from sojourn.asgi.session import SessionMiddleware
from sojourn.asgi.websockets import RevocationMiddleware

__all__ = ["AuthenticationMiddleware", "RevocationMiddleware", "SessionMiddleware"]
