-- Takes back what one dead consumer held: a prompt that was alone in its batch is charged with the death, and after
-- DEATHS of them it ends. Alive is who has a worker key, idle time says nothing of that; `sure` is who has seen the
-- process gone.
-- KEYS  1-3 the stage's streams by class  4 wake  5 due  6 done  7 dead  8 events  9 totals  10 worker key  11 slot token
--       12... the record of each entry
-- ARGV  1 consumer  2 sure  3 stage  4 node  5 ttl_ms  6 done_keep_s  7... class, entry, prompt of each
-- reply how many entries were taken back
local consumer, stage, ttl_ms, keep_s = ARGV[1], ARGV[3], ARGV[5], tonumber(ARGV[6])
if ARGV[2] == '0' and redis.call('EXISTS', KEYS[10]) == 1 then return 0 end
expect({[KEYS[4]] = 'list', [KEYS[5]] = 'zset', [KEYS[6]] = 'stream', [KEYS[7]] = 'stream', [KEYS[8]] = 'stream',
  [KEYS[9]] = 'hash'})
local now = server_time()
local function pending(stream, count)
  local rows = redis.pcall('XPENDING', stream, GROUP, '-', '+', count, consumer)
  if not rows.err then return rows end
  -- What is no stream, or has no group, holds nobody's prompts; its neighbours do.
  if not (string.find(rows.err, 'NOGROUP', 1, true) or string.find(rows.err, 'WRONGTYPE', 1, true)) then error(rows.err, 0) end
  return {}
end

local batch, held = 0, {}
for class = 1, 3 do
  for _, row in ipairs(pending(KEYS[class], 1000)) do
    batch = batch + 1
    held[class .. row[1]] = true
  end
end
local has_slot = ARGV[2] == '1' and redis.call('GET', KEYS[11]) == consumer
-- A harmless first write: past it, a server at its memory limit lets the script finish.
redis.call('DEL', KEYS[10])
if has_slot then redis.call('DEL', KEYS[11]) end

local function finish_off(stream, entry, id, record, known, attempts)
  local kept = stage == 'heavy' and known[5] == '1'
  local how, why = kept and 'light' or 'failed', kept and 'heavy_failed' or 'poison'
  local reason = string.format('%d workers died while they drew this prompt alone', attempts)
  local found = redis.call('XRANGE', stream, entry, entry)
  local fields = stamped(found[1] and found[1][2] or {}, {id = id, published = known[3], deadline = known[4], reason = reason})
  finish({record = record, due = KEYS[5], done = KEYS[6], dead = KEYS[7], events = KEYS[8]}, id, fields, how, why,
    now, ttl_ms, keep_s, {'node', ARGV[4], 'worker', consumer, 'attempts', attempts})
  redis.call('HINCRBY', KEYS[9], how, 1)
  redis.call('HINCRBY', KEYS[9], how .. ':' .. why, 1)
  remove(stream, entry)
end

-- One that somebody wrote by hand with its id and times has no record before its first hop: it gets one here, or no
-- death could be charged to it and no keeper would know of it. `adopt.lua` does the same for what lacks them.
local function adopted(stream, class, entry, id, record, known)
  local found, fields = redis.call('XRANGE', stream, entry, entry), {}
  for k = 1, #(found[1] and found[1][2] or {}), 2 do fields[found[1][2][k]] = found[1][2][k + 1] end
  local published, deadline = tonumber(fields.published or ''), tonumber(fields.deadline or '')
  if fields.id ~= id or not (published and deadline and math.abs(published) < 2 ^ 53 and math.abs(deadline) < 2 ^ 53) then
    return known
  end
  redis.call('HSET', record, 'state', 'open', 'stage', stage, 'class', class, 'entry', entry,
    'published', fields.published, 'deadline', fields.deadline)
  redis.call('ZADD', KEYS[5], deadline, id)
  redis.call('HINCRBY', KEYS[9], 'offered', 1)
  redis.call('HINCRBY', KEYS[9], 'published', 1)
  return {'open', entry, fields.published, fields.deadline, false, stage, tostring(class)}
end

local count = 0
for i = 7, #ARGV, 3 do
  local class, entry, id, record = tonumber(ARGV[i]) + 1, ARGV[i + 1], ARGV[i + 2], KEYS[12 + (i - 7) / 3]
  if held[class .. entry] then
    local known = redis.call('HMGET', record, 'state', 'entry', 'published', 'deadline', 'light', 'stage', 'class')
    if not known[1] then known = adopted(KEYS[class], class - 1, entry, id, record, known) end
    local attempts = 0
    if batch == 1 and known[1] == 'open' and is_of(KEYS[class], entry, known[2], known[6], known[7]) then
      attempts = redis.call('HINCRBY', record, 'attempts', 1)
    end
    if attempts >= DEATHS then finish_off(KEYS[class], entry, id, record, known, attempts)
    else redis.call('XCLAIM', KEYS[class], GROUP, SUSPECT, 0, entry, 'IDLE', RETRY_MS, 'JUSTID') end -- at once
    count = count + 1
  end
end
if count > 0 then
  redis.call('HINCRBY', KEYS[9], 'reclaimed', count)
  wake(KEYS[4])
end
for class = 1, 3 do
  -- Deleting a consumer loses what is pending for it: only when nothing is.
  if #pending(KEYS[class], 1) == 0 then redis.pcall('XGROUP', 'DELCONSUMER', KEYS[class], GROUP, consumer) end
end
return count
