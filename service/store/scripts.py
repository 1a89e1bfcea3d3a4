"""The scripts: each is one step that happens whole or not at all, and may be sent twice without harm.

Scores and times are milliseconds since 1970 by Redis's own clock, so that no two machines can disagree about them.
Keys are made from the prefix inside the scripts: Redis Cluster is not supported.

    jarai:production:{id}   version, newline, state      jarai:dirty      zset  inbox not empty -> next attempt
    jarai:inbox:{id}        list of observations         jarai:ask        zset  JARAI has to be asked
    jarai:events:{id}       hash number -> body          jarai:download   zset  "id:key" has to be fetched
    jarai:timeline:{id}     list of entries              jarai:forget     zset  settled, retention is running
    jarai:download:small    zset  those of `download` that are fetched in no time and go first; what counts is there
    jarai:link:{id}:{key}   address, expires             jarai:index      zset  every production -> first seen
    jarai:attempts          hash id -> tries in a row    jarai:claims     hash  "id:key" -> token, host of the address
    jarai:deadletter:{id}   hash                         jarai:progress   hash  "id:key" -> bytes so far, a second
    jarai:download:blocked  all that is due waits for a place at its host
    jarai:fetching:{host}   zset  "id:key" -> until when jarai:bandwidth  when the line is free again
    jarai:deadletters       zset -> when added           jarai:counts     hash  name of a fact -> how often
    jarai:tries             hash  id or "id:key" -> claims in a row that came to nothing
    jarai:forgotten:{xxx}   hash id -> last number: productions whose retention ran out, by the id's first three
    jarai:clock             the latest time that was seen  jarai:deployment  made once: gone when Redis was emptied
    jarai:news              goes up whenever something may have become due earlier than it was: else no poller looks
    jarai:storage           bytes that found no room       jarai:storage:try  one try at it is enough for now
    jarai:asking:{id}       JARAI is being asked about it just now
    jarai:ask:telling       zset  those of `ask` about which there is more than suspicion: they go first
    jarai:budget            what is known of the budget of requests
    jarai:requests          zset  those of the last minute    jarai:requests:flying  not answered yet
    jarai:alive             zset  kind and name of a process -> until when that holds
    jarai:unaccounted       zset  settled, and its webhooks not counted yet -> when it settled
    jarai:radar             hash  "day what" -> how many webhooks came, were missed ...
    jarai:experience        what settled productions have taught
    jarai:told:{what}       it was said in the log, and need not be said again so soon
    jarai:facts             stream of notices: id, type, body; the newest 10,000 or a few more
    jarai:notice:{id}       hash   to be delivered: body    jarai:notify    zset  notices -> next attempt
    jarai:notify:pause      hash   the receiver failed so often, nothing is sent until then
    jarai:trigger:{digest}  hash   a production that JARAI was asked to start, and nobody knows yet whether it has
    jarai:subscriptions     hash   subscription -> fingerprint of its key, where it was made from here
    jarai:rotation          hash   the subscription that is being replaced, and the new one
    jarai:rotation:running  somebody is at it
    jarai:listening         a worker of `advance` needs no job to be woken: `rung`, a list, does it
    jarai:heard             hash   fingerprint of a signing key -> when a webhook signed with it came last
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.client import Pipeline
from redis.exceptions import NoScriptError

PREFIX = "jarai:"


def moment(milliseconds: int) -> datetime:
    """An instant as it is kept in Redis."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


_HEAD = """
local P = 'jarai:'
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function forgotten(id)
  return redis.call('HGET', P..'forgotten:'..string.sub(id, 1, 3), id)
end
local function undue(member)
  redis.call('ZREM', P..'download', member)
  redis.call('ZREM', P..'download:small', member)
  local host = string.match(redis.call('HGET', P..'claims', member) or '', '\t(.+)$')
  if host then
    redis.call('ZREM', P..'fetching:'..host, member)
    redis.call('DEL', P..'download:blocked')
  end
end
local function due_downloads(list, now, look)  -- in pages, until `look` has seen enough
  for page = 0, 39 do
    local found = redis.call('ZRANGEBYSCORE', P..list, '-inf', now, 'LIMIT', page * 250, 250)
    for _, member in ipairs(found) do
      local at = list == 'download' and now or redis.call('ZSCORE', P..'download', member)
      if at and tonumber(at) <= now and look(member) then return end
    end
    if #found < 250 then return end
  end
end
local function news() redis.call('INCR', P..'news') end
local function dirty(id, now)
  local new = redis.call('ZADD', P..'dirty', 'NX', now, id)
  if new == 1 then news() end
  return new
end
local function keep_notice(id, at, production, account, kind, body)
  redis.call('DEL', P..'notice:'..id)
  redis.call('HSET', P..'notice:'..id, 'at', at, 'production_id', production, 'account_id', account, 'type', kind,
    'body', body)
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

    async def run_async(self, redis: AsyncRedis, *args: Any) -> Any:
        try:
            return await redis.evalsha(self.sha, 0, *args)
        except NoScriptError:
            return await redis.eval(self.text, 0, *args)

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


# most bells, then "id number body" of each -> for each: 1 newly dirty, and more bells are of use;
# 0 accepted; -1 the same again; the other body of that number; or an error, which leaves the others alone
# As many as one bell is for go to whoever listens.
ACCEPT = Script("""
local now, out = now_ms(), {}
local listening, fresh = redis.call('EXISTS', P..'listening') == 1, 0
local enough = redis.call('LLEN', 'rq:queue:advance') >= tonumber(ARGV[1])
local function accept(id, number, body)
  local last = forgotten(id)
  if last and tonumber(number) <= tonumber(last) then return -1 end
  if redis.call('HSETNX', P..'events:'..id, number, body) == 0 then
    local kept = redis.call('HGET', P..'events:'..id, number)
    if kept == body then return -1 end
    return kept
  end
  redis.call('RPUSH', P..'inbox:'..id, 'e'..number..' '..now)
  local newly = dirty(id, now)
  fresh = fresh + newly
  return (enough or (listening and fresh <= 16)) and 0 or newly
end
for i = 2, #ARGV do
  local fine, answer = pcall(accept, string.match(ARGV[i], '^(%S+) (%d+) (.*)$'))
  out[#out + 1] = fine and answer or {err = type(answer) == 'table' and answer.err or answer}
end
if fresh > 0 and listening and redis.call('LLEN', P..'rung') == 0 then redis.call('RPUSH', P..'rung', 1) end
return out
""")

# id, observation, 1 if it may begin a production, key of the file that it is the result of -> 1 newly dirty, 0 not
# A file whose result lies in the inbox is due no more, until the commit says so.
OBSERVE = Script("""
local id = ARGV[1]
if ARGV[3] == '0' and redis.call('EXISTS', P..'production:'..id) == 0 then return 0 end
redis.call('RPUSH', P..'inbox:'..id, ARGV[2])
if ARGV[4] ~= '' then undue(id..':'..ARGV[4]) end
return dirty(id, now_ms())
""")

# digest, token, 1 to go on although one is open, milliseconds to keep it, account, topic, state
# -> now, and if another one is open: since when, its state
# The oldest that is open tells since when. Each request has its token, so that one leaves the others alone.
INTEND = Script("""
local key, mine, now = P..'trigger:'..ARGV[1], 'token:'..ARGV[2], now_ms()
local open = redis.call('HMGET', key, 'at', 'state')
if open[1] and ARGV[3] == '0' and redis.call('HEXISTS', key, mine) == 0 then return {now, open[1], open[2]} end
redis.call('HSETNX', key, 'at', now)
redis.call('HSET', key, 'account', ARGV[5], 'topic', ARGV[6], 'state', ARGV[7], mine, 1)
redis.call('PEXPIRE', key, ARGV[4])
return {now}
""")

# digest, token -> 1 when none is open any more: this request has certainly started nothing
RELENT = Script("""
local key = P..'trigger:'..ARGV[1]
redis.call('HDEL', key, 'token:'..ARGV[2])
return redis.call('HLEN', key) <= 4 and redis.call('DEL', key) or 0
""")

# id, observation, digest, [id of the one in whose place it was started, observation]
# -> 1 newly dirty, 0 not: JARAI has started it, so it is followed and no intent is open
TRIGGERED = Script("""
redis.call('RPUSH', P..'inbox:'..ARGV[1], ARGV[2])
if ARGV[4] then
  redis.call('RPUSH', P..'inbox:'..ARGV[4], ARGV[5])
  dirty(ARGV[4], now_ms())
end
redis.call('DEL', P..'trigger:'..ARGV[3])
return dirty(ARGV[1], now_ms())
""")

# for each dead letter: id, how many more of these are its own, field, value, ...
BURY = Script("""
local i, now = 1, now_ms()
while ARGV[i] do
  local last = i + 1 + ARGV[i + 1]
  bury(ARGV[i], now, {unpack(ARGV, i + 2, last)})
  i = last + 1
end
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
    local number = string.match(entry, '^[er](%d+) ')
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
if change.ask and change.telling then redis.call('ZADD', P..'ask:telling', change.ask, id)
else redis.call('ZREM', P..'ask:telling', id) end
if change.settles then redis.call('ZADD', P..'unaccounted', 'NX', now, id) end
for file, due in pairs(change.downloads) do
  local member = id..':'..file
  undue(member)
  if due then
    redis.call('ZADD', P..'download', due[1], member)
    if not due[2] then redis.call('ZADD', P..'download:small', due[1], member) end
  else
    redis.call('DEL', P..'link:'..member)
  end
  redis.call('HDEL', P..'claims', member)
  redis.call('HDEL', P..'progress', member)
  redis.call('HDEL', P..'tries', member)
end
redis.call('HDEL', P..'tries', id)
if change.forget then redis.call('ZADD', P..'forget', 'NX', change.forget, id)
else redis.call('ZREM', P..'forget', id) end
for _, dead in ipairs(change.resolved) do
  redis.call('ZREM', P..'deadletters', dead)
  redis.call('DEL', P..'deadletter:'..dead)
end
for _, dead in ipairs(change.dead) do bury(dead[1], now, dead[2]) end
for name, times in pairs(change.counts) do redis.call('HINCRBY', P..'counts', name, times) end
for _, notice in ipairs(change.notices) do
  redis.call('XADD', P..'facts', 'MAXLEN', '~', 10000, '*', 'id', notice[1], 'type', notice[2], 'body', notice[3])
  if change.notify and redis.call('ZADD', P..'notify', 'NX', now, notice[1]) == 1 then
    keep_notice(notice[1], now, id, change.account, notice[2], notice[3])
  end
end
redis.call('LTRIM', P..'inbox:'..id, ARGV[4], -1)
redis.call('HDEL', P..'attempts', id)
local left = redis.call('LLEN', P..'inbox:'..id)
if left == 0 then redis.call('ZREM', P..'dirty', id) else redis.call('ZADD', P..'dirty', now, id) end
news()
return left
""")

# kind and name of a process, how long that holds -> 1: it is at work
REPORT_ALIVE = Script("""
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', P..'alive', '-inf', now)
redis.call('ZADD', P..'alive', now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', P..'alive', ARGV[2])
return 1
""")

# name, ... -> how many: webhooks came just now, signed with the keys of these names
NOTE_HEARD = Script("""
for _, name in ipairs(ARGV) do redis.call('HSET', P..'heard', name, now_ms()) end
return #ARGV
""")

# id, observation -> 1 newly dirty: the observation, and after it all events of the timeline once more
REPLAY = Script("""
redis.call('RPUSH', P..'inbox:'..ARGV[1], ARGV[2])
for _, entry in ipairs(redis.call('LRANGE', P..'timeline:'..ARGV[1], 0, -1)) do
  if string.sub(entry, 1, 1) == 'e' then redis.call('RPUSH', P..'inbox:'..ARGV[1], 'r'..string.sub(entry, 2)) end
end
return dirty(ARGV[1], now_ms())
""")

# id, pause, most attempts, dead letter id, field, value, ... -> attempts so far; parked once there were too many
FAILED = Script("""
local id = ARGV[1]
local attempts = tonumber(redis.call('HGET', P..'attempts', id) or '0')
if attempts >= tonumber(ARGV[3]) then
  redis.call('ZREM', P..'dirty', id)
  redis.call('ZREM', P..'ask', id)
  bury(ARGV[4], now_ms(), {unpack(ARGV, 5)})
else
  redis.call('ZADD', P..'dirty', 'XX', now_ms() + ARGV[2], id)
  news()
end
return attempts
""")

# id -> 1: a parked production is taken up again
REVIVE = Script("""
redis.call('HDEL', P..'attempts', ARGV[1])
if redis.call('LLEN', P..'inbox:'..ARGV[1]) > 0 then redis.call('ZADD', P..'dirty', now_ms(), ARGV[1]) end
news()
return 1
""")

# patience, 1 if whoever looks asks JARAI -> now, productions waiting longer than that, bells for them, files due, bells
# for them, to ask, next due, milliseconds that the clock was set back since the last look, deployment, notices due,
# bells for them, news
# Every time in Redis is by its clock. When that is set back, what was due soon would be due in an hour: it moves along.
SWEEP = Script("""
local now = now_ms()
local known = redis.call('MGET', P..'clock', P..'deployment', P..'news')
local back = tonumber(known[1] or '0') - now
if back > 1000 then
  local lists = 'dirty ask ask:telling download download:small notify unaccounted requests requests:flying'
  for list in string.gmatch(lists, '%S+') do
    local unit = string.sub(list, 1, 8) == 'requests' and 1000 or 1
    for i, one in ipairs(redis.call('ZRANGE', P..list, 0, -1)) do redis.call('ZINCRBY', P..list, -back / unit, one) end
  end
  local budget = redis.call('GET', P..'budget')
  if budget then
    budget = cjson.decode(budget)
    for _, name in ipairs({'paused_until', 'reset_at', 'down_until'}) do
      budget[name] = (budget[name] or 0) - back / 1000
    end
    redis.call('SET', P..'budget', cjson.encode(budget))
  end
  redis.call('DEL', P..'bandwidth', P..'notify:pause', unpack(redis.call('KEYS', P..'fetching:*')))
else
  back = 0
end
redis.call('SET', P..'clock', now)
local next_at = -1
local function due(list, till, pause)
  local head = tonumber(redis.call('ZRANGE', P..list, 0, 0, 'WITHSCORES')[2])
  if not head then return 0 end
  if pause then head = math.max(head, tonumber(redis.call('HGET', pause, 'until') or '0')) end
  if next_at < 0 or head < next_at then next_at = head end
  return head <= till and redis.call('ZCOUNT', P..list, '-inf', till) or 0
end
local waiting, files = due('dirty', now - ARGV[1]), due('download', now)
local questions = ARGV[2] == '1' and due('ask', now) or 0
local notices = due('notify', now, P..'notify:pause')
if files > 0 and redis.call('EXISTS', P..'download:blocked') == 1 then files = 0 end
if files > 0 and redis.call('EXISTS', P..'storage') == 1 then
  files = math.min(files, 1 - redis.call('EXISTS', P..'storage:try'))
end
return {now, waiting, redis.call('LLEN', 'rq:queue:advance'), files, redis.call('LLEN', 'rq:queue:download'),
  questions, next_at, back, known[2] or '', notices, redis.call('LLEN', 'rq:queue:notify'), known[3] or ''}
""")

# lease -> now, id, state, claims in a row: the production that JARAI has to be asked about first
# One whose inbox is not empty waits a moment: what lies in there may answer the question. So does one whose answer is
# on its way, whatever made it due again meanwhile. Where the answer will tell much goes before mere suspicion.
CLAIM_ASK = Script("""
local now, chosen = now_ms(), nil
for _, list in ipairs({'ask:telling', 'ask'}) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P..list, '-inf', now, 'LIMIT', 0, 100)) do
    local at = tonumber(redis.call('ZSCORE', P..'ask', id) or 'inf')
    if redis.call('ZSCORE', P..'dirty', id) or redis.call('EXISTS', P..'asking:'..id) == 1 then
      redis.call('ZADD', P..'ask', 'XX', now + 250, id)
    elseif at <= now then
      chosen = id
      break
    end
  end
  if chosen then break end
end
if not chosen then return {now} end
redis.call('ZADD', P..'ask', now + ARGV[1], chosen)
redis.call('SET', P..'asking:'..chosen, 1, 'PX', ARGV[1])
return {now, chosen, redis.call('GET', P..'production:'..chosen) or '', redis.call('HINCRBY', P..'tries', chosen, 1)}
""")

# id, time -> the question is due again then, and this claim does not count
GIVE_BACK_ASK = Script("""
redis.call('HDEL', P..'tries', ARGV[1])
redis.call('DEL', P..'asking:'..ARGV[1])
news()
return redis.call('ZADD', P..'ask', 'XX', ARGV[2], ARGV[1])
""")

# pause, most -> ids that settled so long ago, now nobody else's
TAKE_UNACCOUNTED = Script("""
local due = redis.call('ZRANGEBYSCORE', P..'unaccounted', '-inf', now_ms() - ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(due) do redis.call('ZREM', P..'unaccounted', id) end
return due
""")

# token, lease, pause while the storage folder fails, most at a time from one host (0: any), 1 for small ones only
# -> now, "id:key", state, address, claims in a row
# Small ones go first. A folder that takes no files is tried with one file now and then.
CLAIM_DOWNLOAD = Script("""
local now = now_ms()
local places = {}
local function free(host)
  if ARGV[4] == '0' or not host then return true end
  if places[host] == nil then
    redis.call('ZREMRANGEBYSCORE', P..'fetching:'..host, '-inf', now)
    places[host] = redis.call('ZCARD', P..'fetching:'..host) < tonumber(ARGV[4])
  end
  return places[host]
end
local member, link, host, blocked
local function take(one)
  local address = redis.call('GET', P..'link:'..one) or ''
  local place = string.match(address, '^%a+://([^/?#]+)')
  if free(place) then member, link, host = one, address, place else blocked = true end
  return member
end
due_downloads('download:small', now, take)
local quick = member
if not member and ARGV[5] == '0' then due_downloads('download', now, take) end
if not member then
  if blocked then redis.call('SET', P..'download:blocked', 1, 'PX', 2000) end
  return {now}
end
if redis.call('EXISTS', P..'storage') == 1 and not redis.call('SET', P..'storage:try', 1, 'NX', 'PX', ARGV[3]) then
  return {now}
end
undue(member)
redis.call('ZADD', P..'download', now + ARGV[2], member)
if quick then redis.call('ZADD', P..'download:small', now + ARGV[2], member) end
redis.call('HSET', P..'claims', member, host and ARGV[4] ~= '0' and ARGV[1]..'\t'..host or ARGV[1])
if host and ARGV[4] ~= '0' then
  redis.call('ZADD', P..'fetching:'..host, now + ARGV[2], member)
  redis.call('PEXPIRE', P..'fetching:'..host, 3600000)
end
local id = string.match(member, '^[^:]+')
return {now, member, redis.call('GET', P..'production:'..id) or '', link, redis.call('HINCRBY', P..'tries', member, 1)}
""")

# token, lease, "id:key", bytes so far, bytes a second -> -1 when the claim is lost, else 1 if a small one is due
# Who gets further than anybody before is no failure.
RENEW_DOWNLOAD = Script("""
local now, member = now_ms(), ARGV[3]
local token, host = string.match(redis.call('HGET', P..'claims', member) or '', '^([^\t]+)\t?(.*)$')
if token ~= ARGV[1] then return -1 end
redis.call('ZADD', P..'download', 'XX', now + ARGV[2], member)
redis.call('ZADD', P..'download:small', 'XX', now + ARGV[2], member)
if host ~= '' then redis.call('ZADD', P..'fetching:'..host, 'XX', now + ARGV[2], member) end
local before = string.match(redis.call('HGET', P..'progress', member) or '0', '^%d+')
if tonumber(ARGV[4]) > tonumber(before) then
  redis.call('HSET', P..'progress', member, ARGV[4]..' '..ARGV[5])
  redis.call('HSET', P..'tries', member, 1)
end
local waiting = 0
due_downloads('download:small', now, function()
  waiting = 1
  return true
end)
return waiting
""")

# "id:key" -> nobody wants this file any more
DROP_DOWNLOAD = Script("""
undue(ARGV[1])
for _, hash in ipairs({'claims', 'progress', 'tries'}) do redis.call('HDEL', P..hash, ARGV[1]) end
return redis.call('DEL', P..'link:'..ARGV[1])
""")

# bytes, bytes a second -> milliseconds to wait after they came: all who fetch share one line
TAKE_BANDWIDTH = Script("""
local now = now_ms()
local free = math.max(tonumber(redis.call('GET', P..'bandwidth') or '0'), now)
free = free + ARGV[1] * 1000 / ARGV[2]
redis.call('SET', P..'bandwidth', string.format('%.3f', free), 'PX', 600000)
return math.ceil(free - now)
""")

# bytes of the file, pause, memory -> 1 when that is news: the storage folder did not take it
STORAGE_FAILED = Script("""
redis.call('SET', P..'storage:try', 1, 'PX', ARGV[2])
local before = redis.call('GET', P..'storage')
redis.call('SET', P..'storage', math.max(tonumber(before or '0'), tonumber(ARGV[1])), 'PX', ARGV[3])
return before and 0 or 1
""")

# bytes of the file -> 1 when that is news: it took one as large as it had refused. A smaller one proves nothing.
STORAGE_WORKS = Script("""
local refused = redis.call('GET', P..'storage')
if not refused or tonumber(ARGV[1]) < tonumber(refused) then return 0 end
return redis.call('DEL', P..'storage', P..'storage:try') > 0 and 1 or 0
""")

# token, lease -> now, id, production, account, type, body, failures in a row, claims in a row, failures of the receiver
# A receiver that failed is left alone for a while, and then tried with one notice.
CLAIM_NOTICE = Script("""
local now, pause = now_ms(), P..'notify:pause'
local till = tonumber(redis.call('HGET', pause, 'until') or '0')
local id = redis.call('ZRANGEBYSCORE', P..'notify', '-inf', now, 'LIMIT', 0, 1)[1]
if till > now or not id then return {now} end
local notice = P..'notice:'..id
local kept = redis.call('HMGET', notice, 'production_id', 'account_id', 'type', 'body', 'attempts')
if not kept[4] then
  redis.call('ZREM', P..'notify', id)
  return {now}
end
redis.call('ZADD', P..'notify', now + ARGV[2], id)
redis.call('HSET', notice, 'claim', ARGV[1])
if till > 0 then redis.call('HSET', pause, 'until', now + ARGV[2]) end
return {now, id, kept[1], kept[2], kept[3], kept[4], tonumber(kept[5] or '0'),
  redis.call('HINCRBY', notice, 'claims', 1), tonumber(redis.call('HGET', pause, 'failures') or '0')}
""")

# id, dead letter id -> 1: it was delivered, by whoever it was, and is no dead letter either
NOTICE_DELIVERED = Script("""
redis.call('DEL', P..'notify:pause', P..'notice:'..ARGV[1], P..'deadletter:'..ARGV[2])
news()
redis.call('ZREM', P..'deadletters', ARGV[2])
if redis.call('ZREM', P..'notify', ARGV[1]) == 0 then return 0 end
redis.call('HINCRBY', P..'counts', 'notice.delivered', 1)
return 1
""")

# token, id, pause of the receiver or 0, pause of the notice or -1, dead letter id, field, value, ... -> 1, or 0 when
# the claim is another's by now
NOTICE_FAILED = Script("""
local id, notice, pause, now = ARGV[2], P..'notice:'..ARGV[2], P..'notify:pause', now_ms()
if redis.call('HGET', notice, 'claim') ~= ARGV[1] then return 0 end
news()
if ARGV[3] == '0' then redis.call('DEL', pause)
else
  redis.call('HINCRBY', pause, 'failures', 1)
  redis.call('HSET', pause, 'until', now + ARGV[3])
  redis.call('PEXPIRE', pause, ARGV[3] + 86400000)
end
if ARGV[4] == '-1' then
  redis.call('ZREM', P..'notify', id)
  redis.call('DEL', notice)
  bury(ARGV[5], now, {unpack(ARGV, 6)})
else
  redis.call('ZADD', P..'notify', 'XX', now + ARGV[4], id)
  redis.call('HINCRBY', notice, 'attempts', 1)
  redis.call('HDEL', notice, 'claim', 'claims')
  redis.call('HINCRBY', P..'counts', 'notice.retrying', 1)
end
return 1
""")

# id, production, account, type, body -> 1: it is to be delivered, as if it had just become one
KEEP_NOTICE = Script("""
local now = now_ms()
if redis.call('ZADD', P..'notify', 'NX', now, ARGV[1]) == 1 then keep_notice(ARGV[1], now, unpack(ARGV, 2)) end
news()
return 1
""")

# most -> ids of settled productions whose retention has run out, now gone but for the last number: an old event that is
# replayed must not begin them anew
FORGET = Script("""
redis.call('DEL', P..'download:big')  -- the set of large files that earlier versions kept
local gone = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P..'forget', '-inf', now_ms(), 'LIMIT', 0, ARGV[1])) do
  if redis.call('LLEN', P..'inbox:'..id) == 0 then
    local state = redis.call('GET', P..'production:'..id) or ''
    local last = string.match(state, '"sequence":(%d+)') or '0'
    redis.call('HSET', P..'forgotten:'..string.sub(id, 1, 3), id, last)
    redis.call('DEL', P..'production:'..id, P..'events:'..id, P..'timeline:'..id)
    redis.call('ZREM', P..'index', id)
    redis.call('ZREM', P..'forget', id)
    redis.call('ZREM', P..'ask', id)
    redis.call('ZREM', P..'ask:telling', id)
    redis.call('ZREM', P..'unaccounted', id)
    redis.call('HDEL', P..'tries', id)
    gone[#gone + 1] = id
  end
end
return gone
""")
