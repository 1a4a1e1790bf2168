"""The middlewares for ASGI applications: Starlette, FastAPI, Litestar, Quart, plain ASGI."""

from sojourn.asgi.authentication import AuthenticationMiddleware
from sojourn.asgi.revocation import RevocationMiddleware
from sojourn.asgi.session import SessionMiddleware

__all__ = ["AuthenticationMiddleware", "RevocationMiddleware", "SessionMiddleware"]
