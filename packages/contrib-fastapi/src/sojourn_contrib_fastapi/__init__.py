"""FastAPI with sojourn's sessions: a typed dependency, guards, OpenAPI, and errors through the application's handlers.

install(app, sessions)
CurrentSession = Annotated[Session[UserSession], Depends(SessionDependency(sessions))]
"""

from __future__ import annotations

from sojourn_contrib_fastapi.application import install
from sojourn_contrib_fastapi.dependencies import (
    SessionDependency,
    require_csrf,
    require_fresh,
    require_login,
    require_role,
)

__all__ = ["SessionDependency", "install", "require_csrf", "require_fresh", "require_login", "require_role"]
