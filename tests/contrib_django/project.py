"""The one project of Django that a process of tests can have; what differs is overridden in each test."""

from __future__ import annotations

import django
from django.conf import settings

MIDDLEWARE = [
    "sojourn_contrib_django.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
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


def configure() -> None:
    """Set Django up, once; the database is in memory and shared by all threads."""
    if settings.configured:
        return
    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="of no use",
        LOGGING_CONFIG=None,
        SOJOURN_PRESET="testing",
        SESSION_ENGINE="sojourn_contrib_django.engine",
        MIDDLEWARE=MIDDLEWARE,
        TEMPLATES=TEMPLATES,
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "sojourn_contrib_django",
        ],
        ROOT_URLCONF="tests.contrib_django.urls",
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:tests?mode=memory&cache=shared"},
        },
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        STATIC_URL="static/",
        MEDIA_URL="media/",
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
