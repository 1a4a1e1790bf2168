"""The middlewares for ASGI applications: Starlette, FastAPI, Litestar, Quart, plain ASGI."""

from sojourn.asgi.session import AuthenticationMiddleware, SessionMiddleware
from sojourn.asgi.websockets import RevocationMiddleware

__all__ = ["AuthenticationMiddleware", "RevocationMiddleware", "SessionMiddleware"]
