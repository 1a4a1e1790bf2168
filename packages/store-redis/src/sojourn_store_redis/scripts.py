"""The Lua scripts, one for each write, atomic on the server.

A script uses only keys that it declares. Offsets count from 1 and follow records.py: format 1, version 2-9, idle deadline
10-17, absolute deadline 18-25, count of write ids 26, their slots 27-58, label length 59. Moments are passed as
big-endian doubles, because text would lose digits. An expired record is absent by the clock of the caller.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from sojourn_store_redis.records import FORMAT, SLACK


@dataclass(frozen=True, slots=True)
class Script:
    """A script, its name for messages, and its digest for EVALSHA."""

    name: str
    source: str = field(repr=False)
    digest: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


class Pair(NamedTuple):
    """A write script without and with announcement to processes that keep local copies."""

    silent: Script
    announcing: Script


_READ = f"""
local now = struct.unpack('>d', ARGV[1])
local function is_record(head)
  return #head >= 59 and string.byte(head, 1) == {FORMAT}
end
local function is_live(head)
  if not is_record(head) then return false end
  local idle, absolute = struct.unpack('>dd', head, 10)
  return now < idle and now < absolute
end
local function was_written_by(head, write_id)
  for at = 27, 26 + 8 * string.byte(head, 26), 8 do
    if string.sub(head, at, at + 7) == write_id then return true end
  end
  return false
end
"""

_SILENCE = """
local function announce() end
"""

# Channel and id are the last arguments. Repeated writes are announced, too: the first try may have failed between the
# write and the announcement.
_ANNOUNCE = """
local id = table.remove(ARGV)
local channel = table.remove(ARGV)
local function announce(head)
  local version = 'DEAD'
  if head then version = string.format('%.0f', struct.unpack('>i8', head, 2)) end
  redis.call('PUBLISH', channel, id .. ':' .. version)
end
"""

# The score of a member is the absolute deadline of its record, which no touch moves.
ADD_TO_INDEX = """
local function add_to_index(key, member, score, trim_below, milliseconds)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. trim_below)
  redis.call('ZADD', key, score, member)
  if redis.call('PTTL', key) < tonumber(milliseconds) then
    redis.call('PEXPIRE', key, milliseconds)
  end
end
"""


def _pair(name: str, functions: str, body: str) -> Pair:
    return Pair(Script(name, functions + _SILENCE + body), Script(name, functions + _ANNOUNCE + body))


_CREATE = """
-- KEYS: record [index]; ARGV: now, write id, value, milliseconds [member, score, trim below, milliseconds]
local head = redis.call('GETRANGE', KEYS[1], 0, 58)
if #head > 0 and not is_record(head) then return 0 end
if is_live(head) then
  if was_written_by(head, ARGV[2]) then
    announce(head)
    return 2
  end
  return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
announce(ARGV[3])
if KEYS[2] then add_to_index(KEYS[2], ARGV[5], ARGV[6], ARGV[7], ARGV[8]) end
return 1
"""

CREATE = _pair("create", _READ + ADD_TO_INDEX, _CREATE)
"""1 created, 2 created before by this write id, 0 exists."""

_REPLACE = """
-- KEYS: record [index]
-- ARGV: now, write id, expected version, before and after the write ids, milliseconds
--       [member, score, trim below, milliseconds], or [whether the index, which is not among the keys, has the member]
local head = redis.call('GETRANGE', KEYS[1], 0, 313)
if not is_live(head) then return 0 end
local is_end = #ARGV[5] == 1 -- no label and no payload: the session moved to another id
if was_written_by(head, ARGV[2]) then
  announce(not is_end and head)
  return 2
end
if string.sub(head, 2, 9) ~= ARGV[3] then return -1 end
local length = string.byte(head, 59)
if not KEYS[2] and ARGV[7] == '0' then
  local _, absolute = struct.unpack('>dd', head, 10)
  local label = string.sub(head, 59, 59 + length)
  if label ~= string.sub(ARGV[5], 1, #label) or struct.unpack('>d', ARGV[4], 18) > absolute then return -2 end
end
local count = string.byte(head, 26)
local slots = string.sub(head, 27, 26 + 8 * count) .. ARGV[2]
if count == 4 then slots = string.sub(slots, 9) else count = count + 1 end
slots = slots .. string.rep('\\0', 32 - #slots)
redis.call('SET', KEYS[1], ARGV[4] .. string.char(count) .. slots .. ARGV[5], 'PX', ARGV[6])
announce(not is_end and ARGV[4])
if KEYS[2] then add_to_index(KEYS[2], ARGV[7], ARGV[8], ARGV[9], ARGV[10]) end
if length == 255 or string.sub(head, 59, 59 + length) == string.sub(ARGV[5], 1, 1 + length) then return 1 end
return string.sub(head, 60, 59 + length)
"""

REPLACE = _pair("replace", _READ + ADD_TO_INDEX, _REPLACE)
"""1 replaced, or the former label if it was another; 2 replaced before by this write id, 0 gone, -1 conflict.

INDEX_FIRST, and nothing done: the member must be added to the index first, or in the same call."""
INDEX_FIRST = -2
DONE_BEFORE = 2

TOUCH = Script(
    "touch",
    _READ
    + f"""
-- KEYS: record; ARGV: now, idle deadline
local head = redis.call('GETRANGE', KEYS[1], 0, 58)
if not is_live(head) then return 0 end
local idle, absolute = struct.unpack('>dd', head, 10)
local wanted = math.min(struct.unpack('>d', ARGV[2]), absolute)
if wanted > idle then
  redis.call('SETRANGE', KEYS[1], 9, struct.pack('>d', wanted))
  local milliseconds = math.min(math.ceil((wanted - now + {SLACK:.0f}) * 1000), 9007199254740992)
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', milliseconds))
end
return 1
""",
)
"""1 when the record is present, 0 otherwise."""

_DELETE = """
-- KEYS: record; ARGV: now [expected version]
local head = redis.call('GETRANGE', KEYS[1], 0, 313)
if #head == 0 then
  announce()
  return 0
end
if not is_record(head) then
  if ARGV[2] then return -1 end
  redis.call('UNLINK', KEYS[1])
  announce()
  return 1
end
local live = is_live(head)
if ARGV[2] and string.sub(head, 2, 9) ~= ARGV[2] then
  if live then return -1 end
  return 0
end
-- an expired record is deleted, too: a node whose clock lags must not serve it after a logout
redis.call('UNLINK', KEYS[1])
announce()
if not live then return 0 end
local length = string.byte(head, 59)
if length == 255 then return 1 end
return string.sub(head, 60, 59 + length)
"""

DELETE = _pair("delete", _READ, _DELETE)
"""1 deleted, or the label of what was deleted; 0 gone, -1 conflict."""

UNINDEX = Script(
    "unindex",
    """
-- KEYS: index, records; ARGV: label, members; a member whose record has the label by now stays
local wanted = string.char(#ARGV[1]) .. ARGV[1]
for at = 2, #KEYS do
  if redis.call('GETRANGE', KEYS[at], 58, 58 + #ARGV[1]) ~= wanted then
    redis.call('ZREM', KEYS[1], ARGV[at])
  end
end
return 1
""",
)
"""1, always: members whose record is absent or has another label were removed from the index."""

STAMP_UNITS = 2**20
"""The fraction of a score is the second of adding, modulo 12 days, in these units."""
LEAST_AGE = 300
"""Seconds after which a member without a record may be removed; far longer than any call that adds one."""

INDEX_ADD = Script(
    "index add",
    ADD_TO_INDEX
    + """
-- KEYS: index; ARGV: member, score, trim below, milliseconds
add_to_index(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
return 1
""",
)
"""1, always: the index has the member."""

INDEX_REMOVE = Script(
    "index remove",
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
"""1, always: members that were added longer ago than the age were removed."""

UNLINK_AND_ANNOUNCE = Script(
    "unlink and announce",
    """
-- KEYS: record; ARGV: channel, announcement
redis.call('UNLINK', KEYS[1])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
""",
)
"""1, always: the record was deleted, and its end announced."""
