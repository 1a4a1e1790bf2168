"""The middlewares for ASGI applications: Starlette, FastAPI, Litestar, Quart, plain ASGI."""

from sojourn.asgi.session import AuthenticationMiddleware, HealthMiddleware, SessionMiddleware
from sojourn.asgi.websockets import RevocationMiddleware

__all__ = ["AuthenticationMiddleware", "HealthMiddleware", "RevocationMiddleware", "SessionMiddleware"]
