-- Put in front of every script, after the constants of shared/schema.py. A script first looks, then writes, and acknowledges and deletes last:
-- Lua does not roll back, so an error half-way must leave the entry pending.

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
      error('WRONGTYPE ' .. key .. ' is a ' .. found .. ', not a ' .. kind, 0) -- 6.2 cannot print a table
    end
  end
end

-- Who holds the entry; nil when nobody does, or when the group is gone.
local function owner(stream, entry)
  local rows = redis.pcall('XPENDING', stream, GROUP, entry, entry, 1)
  if rows.err then
    if string.find(rows.err, 'NOGROUP', 1, true) then return nil end
    error(rows.err, 0)
  end
  return rows[1] and rows[1][2]
end

-- Whether an entry waits, by who holds it: nobody, or a reserved consumer (schema.reserved).
local function waits(holder)
  return not holder or holder == RETURNED or holder == SUSPECT or string.sub(holder, 1, #KEPT_FOR) == KEPT_FOR
end

-- How many entries of a stream are in the hands of workers; 0 where it has no group.
local function in_hands(stream)
  local pending = redis.pcall('XPENDING', stream, GROUP)
  local count = pending.err and 0 or pending[1]
  for _, row in ipairs(count > 0 and pending[4] or {}) do
    if waits(row[1]) then count = count - row[2] end
  end
  return count
end

local function wake(key)
  if redis.call('LLEN', key) < WAKE_TOKENS then redis.call('RPUSH', key, '1') end
end

local function announce(events, ...)
  redis.call('XADD', events, 'MAXLEN', '~', EVENTS_KEPT, '*', ...)
end

local function remove(stream, ...)
  redis.pcall('XACK', stream, GROUP, ...)
  redis.call('XDEL', stream, ...)
end

-- The entry's fields, with what its record knows better or its author left out.
local function stamped(fields, known)
  local left = {}
  for name, value in pairs(known) do left[name] = value end
  for i = 1, #fields, 2 do
    if left[fields[i]] then
      fields[i + 1] = left[fields[i]]
      left[fields[i]] = nil
    end
  end
  for name, value in pairs(left) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  return fields
end

-- Whether a record is of a stream's entry, by the entry, stage and class that it tells: within a millisecond several
-- streams may give one id. A stage or class that is missing, or is none, says nothing against it.
local function is_of(stream, entry, known, stage, class)
  if known ~= entry then return false end
  local own_stage, own_class = string.match(stream, ':stage:(%a+):(%d)$')
  if (stage == 'light' or stage == 'heavy') and stage ~= own_stage then return false end
  return class == own_class or not string.match(class or '', '^[012]$')
end

local function stage_of(stream) return string.match(stream, ':stage:(%a+):') or '' end

-- Keeps a picture (`whose`: '<stage> <id>') and enters it in the accounts; returns the bytes by which these grew.
local function keep_picture(key, accounts, whose, picture, now, ttl_ms)
  redis.call('SET', key, picture, 'PX', ttl_ms)
  return #picture * redis.call('ZADD', accounts, seconds(now), #picture .. ' ' .. whose)
end

-- An outcome, flat: how a prompt ended, then its own fields.
local function outcome_of(fields, how, why, now)
  local outcome, own = {'end', how, 'why', why, 'finished', seconds(now)}, {['end'] = true, why = true, finished = true}
  for i = 1, #fields, 2 do -- an entry written by hand may have fields of these names
    if not own[fields[i]] then
      outcome[#outcome + 1] = fields[i]
      outcome[#outcome + 1] = fields[i + 1]
    end
  end
  return outcome
end

-- Leaves a dead letter: the outcome, and what is said beside.
local function lament(dead, outcome, beside)
  for _, part in ipairs(beside or {}) do outcome[#outcome + 1] = part end
  redis.call('XADD', dead, 'MAXLEN', '~', DEAD_KEPT, '*', unpack(outcome))
end

-- The part that an owner's and the keeper's settlement share; the caller counts it in the totals.
-- keys: record, due, done, dead, events; fields: the outcome's own fields, flat; letter: what a dead letter says beside.
local function finish(keys, id, fields, how, why, now, ttl_ms, keep_s, letter)
  redis.call('ZREM', keys.due, id)
  local outcome = outcome_of(fields, how, why, now)
  local entry = redis.call('XADD', keys.done, 'MINID', '~', string.format('%d-0', (now - keep_s) * 1000), '*', unpack(outcome))
  if how == 'failed' or letter then lament(keys.dead, outcome, letter) end
  announce(keys.events, 'type', 'settled', 'id', id, 'end', how, 'why', why)
  redis.call('HSET', keys.record, 'state', how, 'why', why, 'finished', seconds(now),
    'outcome', entry)
  redis.call('PEXPIRE', keys.record, ttl_ms)
end
