"""Django's sessions on sojourn: a middleware and a SESSION_ENGINE for everything that expects Django's own.

In settings.py: ``sojourn_contrib_django`` in INSTALLED_APPS, ``sojourn_contrib_django.middleware.SessionMiddleware`` in
the place of Django's, and ``SESSION_ENGINE = "sojourn_contrib_django.engine"``.
"""

from sojourn_contrib_django.manager import from_settings, get_manager

__all__ = ["from_settings", "get_manager"]
