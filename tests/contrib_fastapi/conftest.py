"""Imports Starlette's test client once, which warns of itself where it is old and anyio is new."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import fastapi.testclient  # noqa: F401
