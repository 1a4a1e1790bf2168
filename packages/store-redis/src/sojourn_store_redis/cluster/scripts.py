"""The scripts for an index that is on another server than the records it names; hints.py says what they are for.

The one rule: each has one key, so that it runs wherever that key is, and while its slot moves, too.
"""

from __future__ import annotations

from sojourn_store_redis.scripts import ADD_TO_INDEX, Script

STAMP_UNITS = 2**20
"""The fraction of a score counts these: the second of adding, modulo 12 days."""
HINT_AGE = 300
"""Seconds after which a member without a record may leave; by far longer than any call that adds one lasts."""

HINT = Script(
    "hint",
    ADD_TO_INDEX
    + """
-- KEYS: index; ARGV: member, score, trim below, milliseconds
add_to_index(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
return 1
""",
)
"""1, always: the index has the member."""

UNHINT = Script(
    "unhint",
    f"""
-- KEYS: index; ARGV: now in units of stamps, age, members
local age = tonumber(ARGV[2])
for at = 3, #ARGV do
  local score = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[at]) or '1e300')
  if score < {2**32} then
    local stamp = math.floor((score - math.floor(score)) * {STAMP_UNITS} + 0.5)
    local passed = (ARGV[1] - stamp) % {STAMP_UNITS}
    if passed >= age and passed < {STAMP_UNITS} - age then redis.call('ZREM', KEYS[1], ARGV[at]) end
  end
end
return 1
""",
)
"""1, always: those of the members have left that were added longer ago than the age."""

FORGET = Script(
    "forget",
    """
-- KEYS: record; ARGV: channel, announcement
redis.call('UNLINK', KEYS[1])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
""",
)
"""1, always: the record is gone, and that was announced."""
