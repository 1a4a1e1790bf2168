"""The Lua scripts, one for each write, atomic on the server.

A script uses only keys that it declares. Offsets count from 1 and follow records.py: format 1, version 2-9, idle deadline
10-17, absolute deadline 18-25, count of write ids 26, their slots 27-58, label length 59. Moments are passed as
big-endian doubles, because text would lose digits. An expired record is absent by the clock of the caller. Numbers in
calls are strings: the server formats a number of Lua with 17 digits, which takes longer than the call itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from sojourn_store_redis.records import FORMAT


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


_NOW = "\nlocal now = struct.unpack('>d', ARGV[1])"

_READ = f"""
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

# A key of another type counts as a damaged record of version 0 that never expires, as `damaged` of records.py has it.
_DAMAGE = f"""
if type(head) == 'table' then
  if not string.find(head.err, 'WRONGTYPE', 1, true) then return head end
  head = '\\{FORMAT}' .. ('\\0'):rep(8) .. ('\\127\\240\\0\\0\\0\\0\\0\\0'):rep(2) .. ('\\0'):rep(33) .. '\\255'
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
# An index of another type was left by somebody else, and hides sessions as its loss does (SECURITY R50).
ADD_TO_INDEX = """
local function add_to_index(key, member, score, trim_below, milliseconds)
  local trimmed = redis.pcall('ZREMRANGEBYSCORE', key, '-inf', '(' .. trim_below)
  if type(trimmed) == 'table' and string.find(trimmed.err, 'WRONGTYPE', 1, true) then redis.call('UNLINK', key) end
  redis.call('ZADD', key, score, member)
  if redis.call('PTTL', key) < tonumber(milliseconds) then
    redis.call('PEXPIRE', key, milliseconds)
  end
end
"""


def _pair(name: str, functions: str, body: str, *, usual: str = "") -> Pair:
    silent = Script(name, usual.format(announcement="") + functions + _SILENCE + body)
    announcing = Script(name, _ANNOUNCE + usual.format(announcement="announce(before)") + functions + body)
    return Pair(silent, announcing)


_CREATE = (
    """
-- KEYS: record [index]; ARGV: now, write id, value, milliseconds [member, score, trim below, milliseconds]
local head = redis.pcall('GETRANGE', KEYS[1], '0', '58')
"""
    + _DAMAGE
    + """
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
)

CREATE = _pair("create", _NOW + _READ + ADD_TO_INDEX, _CREATE)
"""1 created, 2 created before by this write id, 0 exists."""

# The usual write: the version is the expected one, label and absolute deadline stay. It comes before the functions, which
# Lua makes anew in each call, and reads no more than labels of 43 bytes need, as long as those of the manager. A write id
# that happens to occur in the label or payload leads to the longer way, which looks at the slots one by one.
_USUAL_REPLACE = """
-- KEYS: record [index]
-- ARGV: format and expected version and now and write id, before and after the write ids, milliseconds
--       [member, score, trim below, milliseconds], or [whether the index, which is not among the keys, has the member],
--       or ['end'] for what is left of a session that ends or moved to another id
local expected, now, write_id = struct.unpack('>c9dc8', ARGV[1])
local before, after = ARGV[2], ARGV[3]
local head = redis.pcall('GETRANGE', KEYS[1], '0', '101')
if #head >= 59 and ARGV[5] ~= 'end' then
  local version, idle, absolute, count, later, length = struct.unpack('>c9ddBxxxxxxxxc24B', head)
  if version == expected and now < idle and now < absolute and not head:find(write_id, 27, true)
    and (length == 255 and after:byte() == 255 or length < 44 and
      head:sub(59, 59 + length) == after:sub(1, 1 + length) and head:sub(18, 25) == before:sub(18))
  then
    local slots
    if count == 4 then
      slots = '\\4' .. later .. write_id
    else
      slots = string.char(count + 1) .. head:sub(27, 26 + 8 * count) .. write_id .. ('\\0'):rep(24 - 8 * count)
    end
    redis.call('SET', KEYS[1], before .. slots .. after, 'PX', ARGV[4])
    {announcement}
    return 1
  end
end
"""

_REPLACE = (
    _DAMAGE
    + """
if #head > 101 then head = redis.call('GETRANGE', KEYS[1], '0', '313') end
if not is_live(head) then return 0 end
local is_end = ARGV[5] == 'end'
if was_written_by(head, write_id) then
  announce(not is_end and head)
  return 2
end
if string.sub(head, 1, 9) ~= expected then return -1 end
local length = string.byte(head, 59)
if not KEYS[2] and ARGV[5] == '0' then
  local _, absolute = struct.unpack('>dd', head, 10)
  local label = string.sub(head, 59, 59 + length)
  if label ~= string.sub(after, 1, #label) or struct.unpack('>d', before, 18) > absolute then return -2 end
end
local count = string.byte(head, 26)
local slots = string.sub(head, 27, 26 + 8 * count) .. write_id
if count == 4 then slots = string.sub(slots, 9) else count = count + 1 end
slots = slots .. string.rep('\\0', 32 - #slots)
redis.call('SET', KEYS[1], before .. string.char(count) .. slots .. after, 'PX', ARGV[4])
announce(not is_end and before)
if KEYS[2] then add_to_index(KEYS[2], ARGV[5], ARGV[6], ARGV[7], ARGV[8]) end
if length == 255 or string.sub(head, 59, 59 + length) == string.sub(after, 1, 1 + length) then return 1 end
return string.sub(head, 60, 59 + length)
"""
)

REPLACE = _pair("replace", _READ + ADD_TO_INDEX, _REPLACE, usual=_USUAL_REPLACE)
"""1 replaced, or the former label if it was another; 2 replaced before by this write id, 0 gone, -1 conflict.

INDEX_FIRST, and nothing done: the member must be added to the index first, or in the same call."""
INDEX_FIRST = -2
DONE_BEFORE = 2

TOUCH = Script(
    "touch",
    _NOW
    + _READ
    + """
-- KEYS: record; ARGV: now, idle deadline, seconds for which it is kept after that
local head = redis.pcall('GETRANGE', KEYS[1], '0', '58')
"""
    + _DAMAGE
    + """
if not is_live(head) then return 0 end
local idle, absolute = struct.unpack('>dd', head, 10)
local wanted = math.min(struct.unpack('>d', ARGV[2]), absolute)
if wanted > idle then
  redis.call('SETRANGE', KEYS[1], 9, struct.pack('>d', wanted))
  local milliseconds = math.min(math.ceil((wanted - now + ARGV[3]) * 1000), 9007199254740992)
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', milliseconds))
end
return 1
""",
)
"""1 when the record is present, 0 otherwise."""

_DELETE = (
    """
-- KEYS: record; ARGV: now [expected version]
local head = redis.pcall('GETRANGE', KEYS[1], '0', '313')
"""
    + _DAMAGE
    + """
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
)

DELETE = _pair("delete", _NOW + _READ, _DELETE)
"""1 deleted, or the label of what was deleted; 0 gone, -1 conflict."""

UNINDEX = Script(
    "unindex",
    """
-- KEYS: index, records; ARGV: label, members; a member whose record has the label by now stays
local wanted = string.char(#ARGV[1]) .. ARGV[1]
for at = 2, #KEYS do
  if redis.pcall('GETRANGE', KEYS[at], 58, 58 + #ARGV[1]) ~= wanted then
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
