"""The scripts: each is one step that happens whole or not at all, and may be sent twice without harm.

Scores and times are milliseconds since 1970 by Redis's own clock, so that no two machines can disagree about them.
Keys are made from the prefix inside the scripts: Redis Cluster is not supported.

    jarai:production:{id}   version, newline, state      jarai:dirty      zset  inbox not empty -> next attempt
    jarai:inbox:{id}        list of observations         jarai:ask        zset  JARAI has to be asked
    jarai:events:{id}       hash number -> body          jarai:download   zset  "id:key" has to be fetched
    jarai:timeline:{id}     list of entries              jarai:forget     zset  settled, retention is running
    jarai:link:{id}:{key}   address, expires             jarai:index      zset  every production -> first seen
    jarai:attempts          hash id -> tries in a row    jarai:claims     hash  "id:key" -> token of its worker
    jarai:deadletter:{id}   hash                         jarai:progress   hash  "id:key" -> bytes so far
    jarai:deadletters       zset -> when added           jarai:counts     hash  name of a fact -> how often
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import NoScriptError

PREFIX = "jarai:"

_HEAD = """
local P = 'jarai:'
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function bury(id, at, fields)
  if redis.call('ZADD', P..'deadletters', 'NX', at, id) == 0 then return 0 end
  redis.call('HSET', P..'deadletter:'..id, 'at', at, unpack(fields))
  redis.call('HINCRBY', P..'counts', 'deadletter.added', 1)
  return 1
end
"""


class Script:
    """A Lua script, sent by its hash. The text goes over the wire only when Redis does not know it."""

    def __init__(self, body: str) -> None:
        self.text = _HEAD + body
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def run(self, redis: Redis, *args: Any) -> Any:
        try:
            return redis.evalsha(self.sha, 0, *args)
        except NoScriptError:
            return redis.eval(self.text, 0, *args)

    def queue(self, pipeline: Pipeline, *args: Any) -> None:
        pipeline.evalsha(self.sha, 0, *args)


def run_all(redis: Redis, calls: Sequence[tuple[Script, tuple[Any, ...]]]) -> list[Any]:
    """Send many calls in one go; each result or the exception that Redis answered, in order.

    Raises redis.RedisError when the connection fails: then each call may or may not have happened.
    """
    results = _send(redis, calls)
    unknown = [place for place, result in enumerate(results) if isinstance(result, NoScriptError)]
    if unknown:
        for script in {id(calls[place][0]): calls[place][0] for place in unknown}.values():
            redis.script_load(script.text)
        for place, result in zip(unknown, _send(redis, [calls[place] for place in unknown]), strict=True):
            results[place] = result
    return results


def _send(redis: Redis, calls: Sequence[tuple[Script, tuple[Any, ...]]]) -> list[Any]:
    with redis.pipeline(transaction=False) as pipeline:
        for script, args in calls:
            script.queue(pipeline, *args)
        return pipeline.execute(raise_on_error=False)


# id, sequence number, body -> 1 newly dirty, 0 accepted, -1 the same again, or the other body of that number
ACCEPT = Script("""
local id, number, body = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HSETNX', P..'events:'..id, number, body) == 0 then
  local kept = redis.call('HGET', P..'events:'..id, number)
  if kept == body then return -1 end
  return kept
end
local now = now_ms()
redis.call('RPUSH', P..'inbox:'..id, 'e'..number..' '..now)
return redis.call('ZADD', P..'dirty', 'NX', now, id)
""")

# id, observation -> 1 newly dirty, 0 not
OBSERVE = Script("""
redis.call('RPUSH', P..'inbox:'..ARGV[1], ARGV[2])
return redis.call('ZADD', P..'dirty', 'NX', now_ms(), ARGV[1])
""")

# dead letter id, field, value, ...  -> 1 when it is new
BURY = Script("""
return bury(ARGV[1], now_ms(), {unpack(ARGV, 2)})
""")

# most productions, lease, most observations, most bytes -> now, then for each: id, attempts, state, entries, bodies
# A production that failed before is handed out alone, so that it can take no other down with it.
CLAIM = Script("""
local now, out, room = now_ms(), {}, tonumber(ARGV[4])
out[1] = now
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P..'dirty', '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local tried = tonumber(redis.call('HGET', P..'attempts', id) or '0')
  if #out > 1 and (tried > 0 or room <= 0) then break end
  redis.call('HSET', P..'attempts', id, tried + 1)
  redis.call('ZADD', P..'dirty', now + ARGV[2] * math.min(2 ^ tried, 16), id)
  local entries, bodies = {}, {}
  for i, entry in ipairs(redis.call('LRANGE', P..'inbox:'..id, 0, ARGV[3] - 1)) do
    if i > 1 and room <= 0 then break end
    local number = string.match(entry, '^e(%d+) ')
    entries[i], bodies[i] = entry, number and redis.call('HGET', P..'events:'..id, number) or ''
    room = room - #entry - #bodies[i]
  end
  out[#out + 1] = {id, tried + 1, redis.call('GET', P..'production:'..id) or '', entries, bodies}
  if tried > 0 then break end
end
return out
""")

# id, version read, new state, observations consumed, change (JSON, `false` for nothing)
# -> observations left, or -1: somebody was faster
COMMIT = Script("""
local id, change = ARGV[1], cjson.decode(ARGV[5])
local key, now = P..'production:'..id, now_ms()
local version = string.match(redis.call('GET', key) or '', '^(%d+)') or '0'
if version ~= ARGV[2] then return -1 end
redis.call('SET', key, ARGV[3])
if version == '0' then redis.call('ZADD', P..'index', 'NX', now, id) end
if change.replaces then redis.call('RPOP', P..'timeline:'..id) end
for _, entry in ipairs(change.timeline) do redis.call('RPUSH', P..'timeline:'..id, entry) end
for number, body in pairs(change.bodies) do redis.call('HSET', P..'events:'..id, number, body) end
for _, link in ipairs(change.links) do
  redis.call('SET', P..'link:'..id..':'..link[1], link[2], 'PX', link[3])
end
if change.ask then redis.call('ZADD', P..'ask', change.ask, id) else redis.call('ZREM', P..'ask', id) end
for file, at in pairs(change.downloads) do
  local member = id..':'..file
  if at then redis.call('ZADD', P..'download', at, member)
  else
    redis.call('ZREM', P..'download', member)
    redis.call('DEL', P..'link:'..member)
  end
  redis.call('HDEL', P..'claims', member)
  redis.call('HDEL', P..'progress', member)
end
if change.forget then redis.call('ZADD', P..'forget', 'NX', change.forget, id)
else redis.call('ZREM', P..'forget', id) end
for _, dead in ipairs(change.resolved) do
  redis.call('ZREM', P..'deadletters', dead)
  redis.call('DEL', P..'deadletter:'..dead)
end
for _, dead in ipairs(change.dead) do bury(dead[1], now, dead[2]) end
for name, times in pairs(change.counts) do redis.call('HINCRBY', P..'counts', name, times) end
redis.call('LTRIM', P..'inbox:'..id, ARGV[4], -1)
redis.call('HDEL', P..'attempts', id)
local left = redis.call('LLEN', P..'inbox:'..id)
if left == 0 then redis.call('ZREM', P..'dirty', id) else redis.call('ZADD', P..'dirty', now, id) end
return left
""")

# id, pause, most attempts, dead letter id, field, value, ... -> attempts so far; parked once there were too many
FAILED = Script("""
local id = ARGV[1]
local attempts = tonumber(redis.call('HGET', P..'attempts', id) or '0')
if attempts >= tonumber(ARGV[3]) then
  redis.call('ZREM', P..'dirty', id)
  bury(ARGV[4], now_ms(), {unpack(ARGV, 5)})
else
  redis.call('ZADD', P..'dirty', 'XX', now_ms() + ARGV[2], id)
end
return attempts
""")

# id -> 1: a parked production is taken up again
REVIVE = Script("""
redis.call('HDEL', P..'attempts', ARGV[1])
if redis.call('LLEN', P..'inbox:'..ARGV[1]) > 0 then redis.call('ZADD', P..'dirty', now_ms(), ARGV[1]) end
return 1
""")

# patience -> now, productions waiting longer than that, bells for them, files due, bells for them, to ask, next due
SWEEP = Script("""
local now = now_ms()
local next_at = -1
for _, list in ipairs({'dirty', 'download', 'ask'}) do
  local head = redis.call('ZRANGE', P..list, 0, 0, 'WITHSCORES')[2]
  if head and (next_at < 0 or tonumber(head) < next_at) then next_at = tonumber(head) end
end
return {now, redis.call('ZCOUNT', P..'dirty', '-inf', now - ARGV[1]), redis.call('LLEN', 'rq:queue:advance'),
  redis.call('ZCOUNT', P..'download', '-inf', now), redis.call('LLEN', 'rq:queue:download'),
  redis.call('ZCOUNT', P..'ask', '-inf', now), next_at}
""")

# lease -> now, id, state: the production that JARAI has to be asked about first
# One whose inbox is not empty waits a moment: what lies in there may answer the question.
CLAIM_ASK = Script("""
local now = now_ms()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P..'ask', '-inf', now, 'LIMIT', 0, 20)) do
  if redis.call('ZSCORE', P..'dirty', id) then
    redis.call('ZADD', P..'ask', now + 250, id)
  else
    redis.call('ZADD', P..'ask', now + ARGV[1], id)
    return {now, id, redis.call('GET', P..'production:'..id) or ''}
  end
end
return {now}
""")

# token, lease -> now, "id:key", state, address
CLAIM_DOWNLOAD = Script("""
local now = now_ms()
local member = redis.call('ZRANGEBYSCORE', P..'download', '-inf', now, 'LIMIT', 0, 1)[1]
if not member then return {now} end
redis.call('ZADD', P..'download', now + ARGV[2], member)
redis.call('HSET', P..'claims', member, ARGV[1])
local id = string.match(member, '^[^:]+')
return {now, member, redis.call('GET', P..'production:'..id) or '', redis.call('GET', P..'link:'..member) or ''}
""")

# token, lease, "id:key", bytes so far -> 1 while the claim holds
RENEW_DOWNLOAD = Script("""
if redis.call('HGET', P..'claims', ARGV[3]) ~= ARGV[1] then return 0 end
redis.call('ZADD', P..'download', 'XX', now_ms() + ARGV[2], ARGV[3])
redis.call('HSET', P..'progress', ARGV[3], ARGV[4])
return 1
""")

# most -> ids of settled productions whose retention has run out, now gone
FORGET = Script("""
local gone = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P..'forget', '-inf', now_ms(), 'LIMIT', 0, ARGV[1])) do
  if redis.call('LLEN', P..'inbox:'..id) == 0 then
    redis.call('DEL', P..'production:'..id, P..'events:'..id, P..'timeline:'..id)
    redis.call('ZREM', P..'index', id)
    redis.call('ZREM', P..'forget', id)
    redis.call('ZREM', P..'ask', id)
    gone[#gone + 1] = id
  end
end
return gone
""")
