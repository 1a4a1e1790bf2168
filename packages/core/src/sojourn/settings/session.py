"""The settings of one manager and those of plugins, and the plain objects that are made from them.

Settings that exist are valid: what cannot be used is refused when they are made. The defaults are those of
``production``, and docs/settings.md is compared with the fields.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, cast

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr
from pydantic_settings import SettingsConfigDict

from sojourn.errors import ConfigurationError
from sojourn.settings.sources import (
    ENV_FILE,
    ORIGINS,
    RELAXED_PRESETS,
    SESSION_PRESETS,
    LayeredSettings,
    PresetName,
    Presets,
    Surroundings,
    choose,
    refuse_unknown_names,
    resolve_preset,
)
from sojourn.settings.types import (
    Choice,
    Duration,
    DurationOrZero,
    JoinedNames,
    Name,
    Names,
    Networks,
    OptionalCount,
    OptionalDuration,
    OptionalMoment,
    OptionalName,
    OptionalText,
    Origins,
    SecretList,
    lower_case,
    seconds,
    write_duration,
)

if TYPE_CHECKING:
    from sojourn.binding import Binding, TrustedProxies
    from sojourn.breaker import BreakerState, CircuitBreaker
    from sojourn.cookies import CookiePolicy
    from sojourn.crypto.keys import KeyRing
    from sojourn.retry import RetryPolicy

# Idle and absolute timeout of the levels of NIST SP 800-63B-4 that SECURITY R11 refers to.
_AAL1: Final = (timedelta(days=30), timedelta(days=30))
_AAL2: Final = (timedelta(hours=1), timedelta(hours=24))
_AAL3: Final = (timedelta(minutes=15), timedelta(hours=12))

_log = logging.getLogger("sojourn.settings")

_Share = Annotated[float, Field(gt=0, le=1)]
_Positive = Annotated[int, Field(ge=1)]


class SessionSettings(LayeredSettings):
    """The settings of sojourn, from ``SOJOURN_*``: code > environment > .env > secrets file > preset > default.

    *values* are those given in code, by field name. *_env_file* is read in place of ``.env`` in the working
    directory; None reads no such file. Raises ``ConfigurationError`` naming every variable that is wrong. A missing
    secret is an error of ``key_ring()``, not of this, so that settings can be shown without one.
    """

    model_config = SettingsConfigDict(env_prefix="SOJOURN_")
    presets = SESSION_PRESETS

    # What is used.
    preset: str = Field("production", description="The set of defaults to start from")
    store: Name = Field("memory", description="The store, by name; other than `memory` it comes from a plugin")
    serializer: Name = Field("json", description="How data becomes bytes: `json`, `msgpack`, `pydantic` or a plugin's")
    read_serializers: Names = Field(
        (), description="Plugins' serializers that open what they wrote, by name; the built-in ones do anyway"
    )
    check_round_trip: bool = Field(
        False, description="Compare types as well as values with what was stored, after every commit"
    )
    cipher: Name = Field(
        "aes-256-gcm", description="The suite that seals: `aes-256-gcm`, `aes-256-cbc-hmac-sha256` or a plugin's"
    )
    metrics: JoinedNames = Field(
        "null", description="Where figures go: `null`, `log` or a plugin's; several between commas"
    )
    observers: Names = Field((), description="Plugins whose observers are told of every event, by name")
    readers: Names = Field(
        (), description="Plugins that read other libraries' sessions, so that nobody is logged out, by name"
    )
    readers_until: date | None = Field(
        None, description="The last day (UTC) on which they do: a date such as 2027-01-31, at most 90 days ahead"
    )
    revocation_store: OptionalName = Field(
        None, description="A second store in which a client-side store looks up what was revoked"
    )
    fallback_store: OptionalName = Field(
        None, description="The store of before: what the store lacks is moved from there"
    )
    fallback_until: OptionalMoment = Field(None, description="Until then it is asked: `2027-01-31T12:00:00Z`")
    fallback_moves: bool = Field(
        True, description="Move what is found there; false where the fallback is the new store"
    )
    fallback_namespace: OptionalText = Field(None, description="SOJOURN_NAMESPACE of that store, if it was another")
    fallback_encrypt: Choice = Field(None, description="SOJOURN_ENCRYPT of that store; `auto`: the same")
    single_process: bool = Field(
        False, description="No other process serves these sessions, so a revocation index in memory is whole"
    )

    # Secrets.
    secret: SecretStr | None = Field(None, description="The secret; `sojourn keygen` makes one")
    secrets: SecretList = Field((), description="Several secrets as a JSON list; the first seals, all open")
    retired_secrets: SecretList = Field((), description="Secrets that open but never seal, as a JSON list")
    salt: SecretStr | None = Field(None, description="At least 8 bytes; needed when a secret is a passphrase")
    secrets_dir: OptionalText = Field(
        None, description="A directory with one file a setting, named like its variable; `/run/secrets` when it exists"
    )
    encrypt: Choice = Field(None, description="Seal the data; `auto`: every store but `memory` does")
    accept_unsealed_until: OptionalMoment = Field(
        None, description="Until then records that are not sealed are opened, and sealed: `2027-01-31T12:00:00Z`"
    )

    # The cookie.
    cookie_name: str = Field("__Host-session", description="The name of the cookie")
    cookie_path: str = Field("/", description="The path of the cookie; `/` with a `__Host-` name")
    cookie_domain: OptionalText = Field(None, description="The domain of the cookie; none with a `__Host-` name")
    cookie_secure: bool = Field(True, description="Send the cookie over https only; off in relaxed presets alone")
    cookie_http_only: bool = Field(True, description="Hide the cookie from scripts; cannot be turned off")
    cookie_same_site: Annotated[Literal["lax", "strict", "none"], BeforeValidator(lower_case)] = Field(
        "lax", description="Whether other sites' requests carry the cookie"
    )
    cookie_partitioned: bool = Field(False, description="Keep one cookie for each embedding site (CHIPS)")
    cookie_persistent: bool = Field(True, description="Let the cookie outlive the browser, by Max-Age")

    # Lifetimes.
    idle_timeout: Duration = Field(seconds(3600), description="A session unused for so long is over")
    absolute_timeout: Duration = Field(seconds(86400), description="A session this old is over, used or not")
    touch_after: float = Field(
        0.1, ge=0, le=1, description="The share of the idle timeout after which use moves the deadline"
    )
    renew_after: OptionalDuration = Field(None, description="Replace the token this often; `off` for never")
    renew_grace: DurationOrZero = Field(seconds(30), description="How long a renewed token still works")
    keep_expired: DurationOrZero = Field(
        seconds(3600),
        description="How long a store keeps what expired, to tell its visitor so; at most the idle timeout, 0 for never",
    )
    max_sessions: OptionalCount = Field(None, description="The most sessions of one principal; `off` for any number")
    max_sessions_policy: Literal["reject", "evict_oldest"] = Field(
        "evict_oldest", description="What happens to one session too many"
    )

    # Failures.
    on_conflict: Literal["merge", "raise", "overwrite"] = Field(
        "merge", description="What to do when another request changed the session first"
    )
    on_unavailable: Literal["strict", "degraded"] = Field(
        "strict", description="Without the store: `strict` answers 503, `degraded` goes on anonymous and read-only"
    )
    request_deadline: Duration = Field(
        seconds(2), description="The longest that one request waits for the store altogether"
    )
    commit_on_error: bool = Field(False, description="Save the session although the application answered 5xx")
    breaker: bool = Field(True, description="Use the circuit breaker")
    breaker_window: Duration = Field(seconds(10), description="How far back the breaker counts")
    breaker_minimum_calls: _Positive = Field(20, description="Fewer calls in the window never open it")
    breaker_failure_rate: _Share = Field(0.5, description="The share of failed or slow calls that opens it")
    breaker_slow_call: OptionalDuration = Field(seconds(1), description="A call this long counts as failed")
    breaker_open_for: Duration = Field(seconds(1), description="How long it stays open, less up to a fifth")
    breaker_probes: _Positive = Field(3, description="How many calls at once try whether the store is back")
    breaker_probe_deadline: Duration = Field(seconds(5), description="A probe that hangs is given up after this")
    retry_attempts: int = Field(2, ge=0, le=10, description="How often a call is tried again; 0 for never")
    retry_base: Duration = Field(seconds(0.01), description="The longest first wait between tries")
    retry_cap: Duration = Field(seconds(0.1), description="The longest wait between tries")
    retry_deadline: OptionalDuration = Field(
        None, description="No try begins later than this after the first; unset: SOJOURN_REQUEST_DEADLINE"
    )
    retry_budget: _Share = Field(0.2, description="The share of calls that may be tried again")

    # Clients.
    binding: Literal["off", "observe", "reject"] = Field(
        "off", description="Compare the client with the one that began: `observe` reports, `reject` refuses"
    )
    binding_ip: bool = Field(True, description="Compare the address")
    binding_user_agent: bool = Field(True, description="Compare the User-Agent")
    binding_ipv4_prefix: int = Field(32, ge=24, le=32, description="How many bits of an IPv4 address count")
    binding_ipv6_prefix: int = Field(64, ge=48, le=128, description="How many bits of an IPv6 address count")
    trusted_proxies: Networks = Field(
        (), description="Networks of proxies whose forwarding headers are believed; `unix`: a proxy on a unix socket"
    )
    allowed_origins: Origins = Field((), description="Other origins that may open WebSockets: `https://app.example`")
    allow_missing_origin: bool = Field(
        False, description="Let WebSockets with the cookie but without Origin in: native clients; relaxed presets do"
    )

    # Size and place.
    compress: Choice = Field(None, description="Compress the data; `auto`: every store but client-side ones")
    compress_over: int = Field(1024, ge=0, description="Smaller data is not compressed, in bytes")
    max_payload: _Positive = Field(1024 * 1024, description="Data may inflate to this, in bytes")
    max_session_bytes: OptionalCount = Field(
        None, description="The most bytes that a session may grow to, before compression; `off` for SOJOURN_MAX_PAYLOAD"
    )
    max_anonymous_bytes: OptionalCount = Field(None, description="The same, while nobody is logged in")
    memory_max_sessions: _Positive = Field(100_000, description="The most sessions of the store `memory`")
    namespace: str = Field(
        "sojourn", pattern=r"^[A-Za-z0-9_.:-]{1,64}$", description="Sets applications apart that share a store"
    )
    node_id: OptionalText = Field(
        None,
        description="The name of this process in events, in the log of sessions and in CLIENT LIST; unset: a random one in events",
    )
    report_node: bool = Field(True, description="Keep an entry for this process in the store, for `sojourn nodes`")

    _made: dict[str, KeyRing] = PrivateAttr(default_factory=dict)
    _of_plugins: dict[str, LayeredSettings] = PrivateAttr(default_factory=dict)
    _base: PresetName = PrivateAttr("production")

    def __init__(
        self,
        *,
        _env_file: str | os.PathLike[str] | None = ENV_FILE,
        _variables: Mapping[str, object] = MappingProxyType({}),
        _framework: Mapping[str, object] = MappingProxyType({}),
        presets: Presets = MappingProxyType({}),
        **values: Any,
    ) -> None:
        places = Surroundings(env_file=_env_file, variables=_variables, framework=_framework, presets=presets)
        given: dict[str, Any] = {**values, "_surroundings": places}
        super().__init__(**given)
        known = self._known_presets(presets)
        found = resolve_preset(self.preset, known)
        if found is None:
            choices = [*dict.fromkeys((*SESSION_PRESETS, *known))]
            raise ConfigurationError(choose(type(self), "preset", self.origin_of("preset"), self.preset, choices))
        self._base = found.base
        if problems := list(problems_of(self)):
            raise ConfigurationError("\n  ".join(problems))
        self.cookie_policy()
        # What is allowed but looser than NIST AAL2 (SECURITY R11).
        for text in () if self.is_relaxed else _too_long(self, *_AAL2):
            _log.warning("%s (NIST AAL2); fine for sessions of little worth", text)

    def __copy__(self) -> Self:
        """Copy without the key ring that was made, for the copy may get other values."""
        copied = super().__copy__()
        copied._made = {}  # noqa: SLF001 - the same class
        return copied

    @classmethod
    def of_framework(
        cls,
        variables: Mapping[str, object],
        own: Mapping[str, object],
        *,
        secret_key: str | bytes | None = None,
        fallbacks: Sequence[str | bytes] = (),
    ) -> Self:
        """Return the settings for an application whose framework has a configuration of its own.

        The ``SOJOURN_*`` names in *variables* count as given in code, those of plugins too; None is not set. *own* are
        fields that the framework's other settings stand for, where nothing of sojourn's says otherwise; leave out what
        has the framework's default. *secret_key* is the secret where none is set, and *fallbacks* open beside it, if
        they are strong (SECURITY R47); a passphrase needs ``SOJOURN_SALT``. Raises ``ConfigurationError``.
        """
        from sojourn.crypto.keys import framework_secrets

        settings = cls(_variables=variables, _framework=own)
        if not secret_key or settings._secrets():
            return settings
        secrets = framework_secrets(
            [secret_key, *fallbacks], is_relaxed=settings.is_relaxed, has_salt=settings.salt is not None
        )
        if not secrets:
            return settings
        given = {**own, "secret": secrets[0], "retired_secrets": secrets[1:]}
        return cls(_variables=variables, _framework=given)

    @classmethod
    def _known_presets(cls, own: Presets) -> Presets:
        """Return the presets by name: those of this class and its parents, and those given in code."""
        known: dict[str, Mapping[str, object]] = {}
        for kind in reversed(cls.__mro__):
            offered = vars(kind).get("presets")
            if kind is not SessionSettings and isinstance(offered, Mapping):
                _refuse_another_meaning(cast("Presets", offered))
            known.update(cast("Presets", offered) if isinstance(offered, Mapping) else {})
        _refuse_another_meaning(own)
        return {**known, **own}

    @classmethod
    def values_of_preset(cls, name: str, own: Presets) -> dict[str, object]:
        """Return what the preset sets, and those that it extends, by field."""
        known = cls._known_presets(own)
        found = resolve_preset(name, known)
        values = {} if found is None else dict(found.values)
        refuse_unknown_names(cls, values)
        return values

    @property
    def base_preset(self) -> PresetName:
        """The one of the five presets that this one is, or extends in the end: whose refusals hold."""
        return self._base

    @property
    def is_relaxed(self) -> bool:
        """Whether the preset is for work on one's own machine: ``development`` or ``testing``."""
        return self.base_preset in RELAXED_PRESETS

    @property
    def surroundings(self) -> Surroundings:
        """The files and the preset that plugins read their own settings from."""
        return replace(self._surroundings, secrets_dir=self.secrets_dir, preset=self.base_preset, framework={})

    @property
    def of_plugins(self) -> dict[str, LayeredSettings]:
        """The settings of plugins that were built with these, by the prefix of their variables."""
        return self._of_plugins

    def of_fallback(self) -> Self:
        """Return the settings that the fallback store is made from: ``SOJOURN_FALLBACK_X`` counts before ``SOJOURN_X``."""
        changed = {
            "namespace": self.fallback_namespace or self.namespace,
            "encrypt": self.encrypt if self.fallback_encrypt is None else self.fallback_encrypt,
        }
        made = self.model_copy(update=changed)
        made._surroundings, made._of_plugins = replace(self._surroundings, is_fallback=True), {}  # noqa: SLF001
        return made

    def key_ring(self) -> KeyRing:
        """Return the key ring, built once, since that stretches passphrases (SECURITY R28).

        Without a secret ``testing`` gets a ring with a random key, ``development`` the secret that it keeps in a file, and
        every other preset ``ConfigurationError`` (SECURITY R30).
        """
        from sojourn.crypto.keys import HOW_TO_MAKE_A_SECRET, KeyRing

        if "ring" in self._made:
            return self._made["ring"]
        secrets = self._secrets()
        if not secrets and self.base_preset == "development":
            from sojourn.settings.development import DIRECTORY, development_secret

            secrets = [development_secret(DIRECTORY)]
        if not secrets and self.base_preset == "testing":
            ring = KeyRing.ephemeral()
        elif not secrets:
            raise ConfigurationError(
                f"the {self.base_preset} preset needs a secret and none is set: {HOW_TO_MAKE_A_SECRET}, the same on every "
                "node. For work on your own machine set SOJOURN_PRESET=development"
            )
        else:
            retired = [secret.get_secret_value() for secret in self.retired_secrets]
            salt = self.salt.get_secret_value() if self.salt else None
            ring = KeyRing(secrets, retired=retired, salt=salt, allow_weak=self.is_relaxed)
        return self._made.setdefault("ring", ring)

    def _secrets(self) -> list[str]:
        """Return the secrets, the first encrypting; of SOJOURN_SECRET and SOJOURN_SECRETS the one from the earlier source."""
        several = [secret.get_secret_value() for secret in self.secrets]
        one = [self.secret.get_secret_value()] if self.secret is not None else []
        if not one or not several:
            return one or several
        first, second = self.origin_of("secret"), self.origin_of("secrets")
        if first == second:
            raise ConfigurationError(
                f"SOJOURN_SECRET and SOJOURN_SECRETS are both set ({first}); keep one of them, with every secret in it"
            )
        return one if ORIGINS.index(first) < ORIGINS.index(second) else several

    def cookie_policy(self) -> CookiePolicy:
        """Return how the cookie is written (SECURITY R18, R19)."""
        from sojourn.cookies import CookiePolicy

        return CookiePolicy(**self._under("cookie_"))

    def make_breaker(
        self,
        *,
        on_change: Callable[[BreakerState, BreakerState], None] | None = None,
        random: Callable[[], float] = random.random,
    ) -> CircuitBreaker | None:
        """Return a new circuit breaker, or None when it is off."""
        from sojourn.breaker import CircuitBreaker

        if not self.breaker:
            return None
        return CircuitBreaker(random=random, on_change=on_change, **self._under("breaker_"))

    def make_retry_policy(self) -> RetryPolicy:
        """Return when a call is tried again; with ``retry_attempts`` 0 it never is."""
        from sojourn.retry import RetryPolicy

        return RetryPolicy(
            attempts=self.retry_attempts,
            base=self.retry_base.total_seconds(),
            cap=self.retry_cap.total_seconds(),
            deadline=(self.retry_deadline or self.request_deadline).total_seconds(),
        )

    def require_time_for_retries(self, call: float) -> None:
        """Raise ConfigurationError if a call that the store gives up after *call* seconds could never be tried again."""
        name, limit = "SOJOURN_REQUEST_DEADLINE", self.request_deadline.total_seconds()
        if self.retry_deadline is not None and self.retry_deadline < self.request_deadline:
            name, limit = "SOJOURN_RETRY_DEADLINE", self.retry_deadline.total_seconds()
        if self.retry_attempts and call >= limit:
            raise ConfigurationError(
                f"the store gives a call up after {call:g} s, and {name} ({limit:g} s) leaves no time to try it again: "
                f"raise {name}, lower the store's own time-out, or set SOJOURN_RETRY_ATTEMPTS=0"
            )
        if self.breaker and self.breaker_probe_deadline.total_seconds() <= call:
            raise ConfigurationError(
                f"SOJOURN_BREAKER_PROBE_DEADLINE is {self.breaker_probe_deadline.total_seconds():g} s, and a call of the "
                f"store may take {call:g} s: raise it, or no probe of a slow store would count"
            )

    def make_binding(self) -> Binding:
        """Return what of the client is compared (SECURITY R31)."""
        from sojourn.binding import Binding

        return Binding(policy=self.binding, **self._under("binding_"))

    def _under(self, prefix: str) -> dict[str, Any]:
        """Return our own fields that begin with *prefix*, by the rest of their names; durations in seconds."""
        found: dict[str, Any] = {}
        for name in SessionSettings.model_fields:
            if name.startswith(prefix):
                value = getattr(self, name)
                found[name.removeprefix(prefix)] = value.total_seconds() if isinstance(value, timedelta) else value
        return found

    def make_trusted_proxies(self) -> TrustedProxies:
        """Return the proxies whose forwarding headers are believed (SECURITY R31)."""
        from sojourn.binding import TrustedProxies

        return TrustedProxies(self.trusted_proxies)


def problems_of(settings: SessionSettings) -> Iterator[str]:
    """Yield what makes the settings unusable (SECURITY R11, R18, R19); each text names its variable."""
    if not settings.cookie_secure and not settings.is_relaxed:
        yield (
            f"SOJOURN_COOKIE_SECURE cannot be turned off in {_named(settings)}; serve https, or set "
            "SOJOURN_PRESET=development for work on your own machine (SECURITY R19)"
        )
    if settings.binding != "off" and not (settings.binding_ip or settings.binding_user_agent):
        yield (
            f"SOJOURN_BINDING is {settings.binding!r} but compares nothing; turn on SOJOURN_BINDING_IP or "
            "SOJOURN_BINDING_USER_AGENT"
        )
    if settings.retry_base > settings.retry_cap:
        yield (
            f"SOJOURN_RETRY_BASE is {write_duration(settings.retry_base)}; set it at most to SOJOURN_RETRY_CAP "
            f"({write_duration(settings.retry_cap)})"
        )
    if settings.base_preset == "high_security":
        yield from _looser_than_high_security(settings)
    elif not settings.is_relaxed:
        yield from _too_long(settings, *_AAL1)


def _looser_than_high_security(settings: SessionSettings) -> Iterator[str]:
    yield from (f"{told}; lower it" for told in _too_long(settings, *_AAL3))
    preset = _named(settings)
    if settings.binding != "reject":
        yield f"SOJOURN_BINDING must be reject in {preset}"
    if settings.renew_after is None:
        yield f"SOJOURN_RENEW_AFTER cannot be off in {preset}"
    if settings.encrypt is False:
        yield f"SOJOURN_ENCRYPT cannot be off in {preset}"
    if settings.accept_unsealed_until is not None:
        yield f"SOJOURN_ACCEPT_UNSEALED_UNTIL cannot be set in {preset}: who writes to the store could make sessions"
    if settings.cookie_same_site == "none":
        yield f"SOJOURN_COOKIE_SAME_SITE cannot be none in {preset}: other sites' pages would send the cookie"
    if settings.cookie_domain is not None:
        yield f"SOJOURN_COOKIE_DOMAIN cannot be set in {preset}: every host of the domain would get the cookie"
    if settings.on_unavailable == "degraded":
        yield f"SOJOURN_ON_UNAVAILABLE cannot be degraded in {preset}: pages would be served without knowing for whom"


def _named(settings: SessionSettings) -> str:
    """Return the preset for a message, with the one whose refusals hold for it."""
    extends = "" if settings.preset == settings.base_preset else f", which extends {settings.base_preset}"
    return f"the {settings.preset} preset{extends}"


def _refuse_another_meaning(presets: Presets) -> None:
    for name in presets:
        if name in SESSION_PRESETS and presets[name] is not SESSION_PRESETS[name]:
            msg = f"the preset {name!r} is one of the five and keeps its meaning; give yours a name of its own, and extend it"
            raise ConfigurationError(msg)


def _too_long(settings: SessionSettings, idle: timedelta, absolute: timedelta) -> Iterator[str]:
    for variable, value, limit in (
        ("SOJOURN_IDLE_TIMEOUT", settings.idle_timeout, idle),
        ("SOJOURN_ABSOLUTE_TIMEOUT", settings.absolute_timeout, absolute),
    ):
        if value > limit:
            longest = write_duration(limit)
            yield f"{variable} is {write_duration(value)}, longer than the {longest} of {_named(settings)}"
