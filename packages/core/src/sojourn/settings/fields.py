"""Every setting of the core: its type, its default and what it means.

The one rule: the defaults are the safe ones, those of ``production``; docs/settings.md is compared with this file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from sojourn.settings.presets import SESSION_PRESETS, PresetName
from sojourn.settings.sources import LayeredSettings
from sojourn.settings.values import (
    Choice,
    Duration,
    DurationOrZero,
    Name,
    Names,
    Networks,
    OptionalCount,
    OptionalDuration,
    OptionalName,
    OptionalText,
    Origins,
    SecretList,
    lower_case,
    seconds,
)

_Share = Annotated[float, Field(gt=0, le=1)]
_Positive = Annotated[int, Field(ge=1)]


class SessionFields(LayeredSettings):
    """The fields alone; ``SessionSettings`` adds what is made from them."""

    model_config = SettingsConfigDict(env_prefix="SOJOURN_")
    presets = SESSION_PRESETS

    # what is used
    preset: PresetName = Field("production", description="The set of defaults to start from")
    store: Name = Field("memory", description="The store, by name; other than `memory` it comes from a plugin")
    serializer: Name = Field("json", description="How data becomes bytes: `json`, `msgpack`, `pydantic` or a plugin's")
    cipher: Name = Field(
        "aes-256-gcm", description="The suite that seals: `aes-256-gcm`, `aes-256-cbc-hmac-sha256` or a plugin's"
    )
    metrics: Name = Field("null", description="Where figures go: `null`, `log` or a plugin's")
    observers: Names = Field((), description="Plugins whose observers are told of every event, by name")
    revocation_store: OptionalName = Field(
        None, description="A second store in which a client-side store looks up what was revoked"
    )

    # secrets
    secret: SecretStr | None = Field(None, description="The secret; `sojourn keygen` makes one")
    secrets: SecretList = Field((), description="Several secrets as a JSON list; the first seals, all open")
    retired_secrets: SecretList = Field((), description="Secrets that open but never seal, as a JSON list")
    salt: SecretStr | None = Field(None, description="At least 8 bytes; needed when a secret is a passphrase")
    secrets_dir: OptionalText = Field(
        None, description="A directory with one file a setting, named like its variable; `/run/secrets` when it exists"
    )
    encrypt: Choice = Field(None, description="Seal the data; `auto`: every store but `memory` does")

    # the cookie
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

    # lifetime
    idle_timeout: Duration = Field(seconds(3600), description="A session unused for so long is over")
    absolute_timeout: Duration = Field(seconds(86400), description="A session this old is over, used or not")
    touch_after: float = Field(
        0.1, ge=0, le=1, description="The share of the idle timeout after which use moves the deadline"
    )
    renew_after: OptionalDuration = Field(None, description="Replace the token this often; `off` for never")
    renew_grace: DurationOrZero = Field(seconds(30), description="How long a renewed token still works")
    max_sessions: OptionalCount = Field(None, description="The most sessions of one principal; `off` for any number")
    max_sessions_policy: Literal["reject", "evict_oldest"] = Field(
        "evict_oldest", description="What happens to one session too many"
    )

    # failures
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
    breaker_open_for: Duration = Field(seconds(2), description="How long it first stays open")
    breaker_open_cap: Duration = Field(seconds(30), description="How long it stays open at most")
    breaker_probes: _Positive = Field(3, description="How many calls try whether the store is back")
    breaker_probe_deadline: Duration = Field(seconds(5), description="A probe that hangs is given up after this")
    retry_attempts: int = Field(2, ge=0, le=10, description="How often a call is tried again; 0 for never")
    retry_base: Duration = Field(seconds(0.01), description="The longest first wait between tries")
    retry_cap: Duration = Field(seconds(0.1), description="The longest wait between tries")
    retry_deadline: Duration = Field(seconds(0.25), description="No try begins later than this after the first")
    retry_budget: _Share = Field(0.2, description="The share of calls that may be tried again")

    # clients
    binding: Literal["off", "observe", "reject"] = Field(
        "off", description="Compare the client with the one that began: `observe` reports, `reject` refuses"
    )
    binding_ip: bool = Field(True, description="Compare the address")
    binding_user_agent: bool = Field(True, description="Compare the User-Agent")
    binding_ipv4_prefix: int = Field(32, ge=24, le=32, description="How many bits of an IPv4 address count")
    binding_ipv6_prefix: int = Field(64, ge=32, le=128, description="How many bits of an IPv6 address count")
    trusted_proxies: Networks = Field((), description="Networks of proxies whose forwarding headers are believed")
    allowed_origins: Origins = Field((), description="Other origins that may open WebSockets: `https://app.example`")

    # size and place
    compress: Choice = Field(None, description="Compress the data; `auto`: every store but client-side ones")
    compress_over: int = Field(1024, ge=0, description="Smaller data is not compressed, in bytes")
    max_payload: _Positive = Field(1024 * 1024, description="Data may inflate to this, in bytes")
    memory_max_sessions: _Positive = Field(100_000, description="The most sessions of the store `memory`")
    namespace: str = Field(
        "sojourn", pattern=r"^[A-Za-z0-9_.:-]{1,64}$", description="Sets applications apart that share a store"
    )
    node_id: OptionalText = Field(
        None,
        description="The name of this process in events, in the log of sessions and in CLIENT LIST; unset: a random one in events",
    )
