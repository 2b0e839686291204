-- Put in front of every script. A script first looks, then writes, and acknowledges and deletes last:
-- Lua does not roll back, so an error half-way must leave the entry pending.

local GROUP, RETURNED, SUSPECT = 'workers', 'returned', 'suspect'
local WAKE_TOKENS, EVENTS_KEPT, DEAD_KEPT, PLANS_KEPT = 64, 10000, 10000, 1000

local function server_time()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1e6
end

local function seconds(time) return string.format('%.6f', time) end

-- Keys of another type would stop a script after its first write: find them before it.
local function expect(kinds)
  for key, kind in pairs(kinds) do
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then
      error({err = 'WRONGTYPE ' .. key .. ' is a ' .. found .. ', not a ' .. kind})
    end
  end
end

-- Who holds the entry; nil when nobody does, or when the group is gone.
local function owner(stream, entry)
  local rows = redis.pcall('XPENDING', stream, GROUP, entry, entry, 1)
  if rows.err then
    if string.find(rows.err, 'NOGROUP', 1, true) then return nil end
    error(rows)
  end
  return rows[1] and rows[1][2]
end

local function wake(key)
  if redis.call('LLEN', key) < WAKE_TOKENS then redis.call('RPUSH', key, '1') end
end

local function announce(events, ...)
  redis.call('XADD', events, 'MAXLEN', '~', EVENTS_KEPT, '*', ...)
end

local function remove(stream, entry)
  redis.pcall('XACK', stream, GROUP, entry)
  redis.call('XDEL', stream, entry)
end

-- The part that an owner's and the keeper's settlement share. keys: record, due, done, dead, events,
-- totals; fields: the outcome's own fields, flat.
local function finish(keys, id, fields, how, why, now, ttl_ms, keep_s)
  redis.call('HINCRBY', keys.totals, how, 1)
  redis.call('HINCRBY', keys.totals, how .. ':' .. why, 1)
  redis.call('ZREM', keys.due, id)
  local outcome = {'end', how, 'why', why, 'finished', seconds(now)}
  for i = 1, #fields do outcome[#outcome + 1] = fields[i] end
  redis.call('XADD', keys.done, 'MINID', '~', string.format('%d-0', (now - keep_s) * 1000), '*', unpack(outcome))
  if how == 'failed' then
    redis.call('XADD', keys.dead, 'MAXLEN', '~', DEAD_KEPT, '*', unpack(outcome))
  end
  announce(keys.events, 'type', 'settled', 'id', id, 'end', how, 'why', why)
  redis.call('HSET', keys.record, 'state', how, 'why', why, 'finished', seconds(now))
  redis.call('PEXPIRE', keys.record, ttl_ms)
end
