"""What settings may not say together, and what they had better not say.

The one rule: every problem names its variable, and all of them are reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sojourn.settings.presets import RELAXED_PRESETS
from sojourn.settings.values import write_duration

if TYPE_CHECKING:
    from sojourn.settings.fields import SessionFields

AAL2_IDLE: Final = timedelta(hours=1)
AAL2_ABSOLUTE: Final = timedelta(hours=24)
AAL3_IDLE: Final = timedelta(minutes=15)
AAL3_ABSOLUTE: Final = timedelta(hours=12)
AAL1_LONGEST: Final = timedelta(days=30)
"""The limits of NIST SP 800-63B-4 that SECURITY R11 refers to."""


def problems_of(settings: SessionFields) -> Iterator[str]:
    """Yield what must be mended before a manager is built (SECURITY R11, R18, R19)."""
    if not settings.cookie_http_only:
        yield "SOJOURN_COOKIE_HTTP_ONLY cannot be turned off; scripts never need the session's cookie (SECURITY R18)"
    if not settings.cookie_secure and settings.preset not in RELAXED_PRESETS:
        yield (
            f"SOJOURN_COOKIE_SECURE cannot be turned off in the {settings.preset} preset; serve https, or set "
            "SOJOURN_PRESET=development for work on your own machine (SECURITY R19)"
        )
    if settings.binding != "off" and not (settings.binding_ip or settings.binding_user_agent):
        yield (
            f"SOJOURN_BINDING is {settings.binding!r} but compares nothing; turn on SOJOURN_BINDING_IP or "
            "SOJOURN_BINDING_USER_AGENT"
        )
    if settings.preset == "high_security":
        yield from _looser_than_high_security(settings)
    elif settings.preset not in RELAXED_PRESETS:
        yield from _too_long(settings, AAL1_LONGEST, AAL1_LONGEST)


def warnings_of(settings: SessionFields) -> Iterator[str]:
    """Yield what is allowed but looser than NIST AAL2 asks for (SECURITY R11)."""
    if settings.preset in RELAXED_PRESETS:
        return
    for text in _too_long(settings, AAL2_IDLE, AAL2_ABSOLUTE):
        yield f"{text} (NIST AAL2); fine for sessions of little worth"


def _looser_than_high_security(settings: SessionFields) -> Iterator[str]:
    yield from _too_long(settings, AAL3_IDLE, AAL3_ABSOLUTE)
    if settings.binding != "reject":
        yield "SOJOURN_BINDING must be reject in the high_security preset"
    if settings.renew_after is None:
        yield "SOJOURN_RENEW_AFTER cannot be off in the high_security preset"
    if settings.encrypt is False:
        yield "SOJOURN_ENCRYPT cannot be off in the high_security preset"


def _too_long(settings: SessionFields, idle: timedelta, absolute: timedelta) -> Iterator[str]:
    for variable, value, limit in (
        ("SOJOURN_IDLE_TIMEOUT", settings.idle_timeout, idle),
        ("SOJOURN_ABSOLUTE_TIMEOUT", settings.absolute_timeout, absolute),
    ):
        if value > limit:
            yield (
                f"{variable} is {write_duration(value)}, longer than the {write_duration(limit)} of the "
                f"{settings.preset} preset"
            )
