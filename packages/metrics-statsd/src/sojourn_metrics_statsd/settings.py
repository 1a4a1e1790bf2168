"""``SOJOURN_STATSD_*``: where the agent listens and what it understands.

Importing this costs what pydantic-settings costs, so only the hook does it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from sojourn.settings import OptionalText, PluginSettings


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Tags = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Tags between commas; no tag can hold a comma."""


class StatsdSettings(PluginSettings):
    """The settings of the statsd sink; the same in every preset."""

    model_config = SettingsConfigDict(env_prefix="SOJOURN_STATSD_")

    host: str = Field("localhost", description="Host of the agent; looked up in the background")
    port: int = Field(8125, description="UDP port of the agent")
    socket_path: OptionalText = Field(
        None, description="Path of the agent's unix datagram socket; replaces host and port"
    )
    prefix: str = Field("", description="Put before every name, with a dot")
    tags: Tags = Field(
        (), description="Constant tags, `tag` or `tag:value`, between commas; needs the dialect `dogstatsd`"
    )
    dialect: Literal["plain", "dogstatsd"] = Field(
        "plain", description="`plain` puts the values of tags into names, `dogstatsd` sends tags"
    )
    sample_rate: float = Field(1.0, description="Share of counts and durations that are sent; levels always are")
    buffer: bool = Field(False, description="Gather figures for up to 0.3 s into one datagram")  # - a default
