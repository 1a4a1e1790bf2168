"""The middlewares for WSGI applications: Flask, Django, Pyramid, Bottle, plain WSGI."""

from sojourn.wsgi.authentication import AuthenticationMiddleware
from sojourn.wsgi.session import SessionMiddleware

__all__ = ["AuthenticationMiddleware", "SessionMiddleware"]
