-- Hops each prompt of a batch into the next stage, or ends it. One prompt's error leaves that prompt pending
-- and its mates unharmed.
-- KEYS  1-3 the stage's streams by class  4-6 the next stage's  7 wake  8 due  9 done  10 dead  11 events  12 totals
--       13 pictures  14 picture bytes  15... record and image of each prompt
-- ARGV  1 consumer  2 ttl_ms  3 done_keep_s  4 msgpack: hops, each
--       {class, entry, id, end ('' to hop on), why, picture, gpu_s, score, flat fields, what a dead letter adds}
-- reply per prompt: 1 done, 0 no longer ours, 2 overtaken by the keeper and stored as an upgrade,
--       -1 no record (adopt it first), or what went wrong
local consumer, ttl_ms, keep_s = ARGV[1], ARGV[2], tonumber(ARGV[3])
local hops = cmsgpack.unpack(ARGV[4])
local now, stage = server_time(), stage_of(KEYS[1])
expect({[KEYS[7]] = 'list', [KEYS[8]] = 'zset', [KEYS[9]] = 'stream', [KEYS[10]] = 'stream', [KEYS[11]] = 'stream',
  [KEYS[12]] = 'hash', [KEYS[13]] = 'zset', [KEYS[14]] = 'string', [KEYS[4]] = 'stream', [KEYS[5]] = 'stream', [KEYS[6]] = 'stream'})

local counts, finished, grown = {}, {{}, {}, {}}, 0
local function count(name) counts[name] = (counts[name] or 0) + 1 end

-- What this consumer holds, class by class; nothing where the group is gone.
local held = {}
for class = 1, 3 do
  local rows = redis.pcall('XPENDING', KEYS[class], GROUP, '-', '+', 1000, consumer)
  if rows.err and not string.find(rows.err, 'NOGROUP', 1, true) then error(rows.err, 0) end
  for _, row in ipairs(rows.err and {} or rows) do
    -- A harmless first write: past it, a server at its memory limit lets the script finish.
    if not next(held) then redis.call('XCLAIM', KEYS[class], GROUP, consumer, 0, row[1], 'JUSTID') end
    held[class .. row[1]] = true
  end
end

-- `open_s`: how long its prompt may stay open; so much longer the picture may be the answer of last resort.
local function keep(image, id, picture, open_s)
  if picture == '' then return end
  local lives_ms = string.format('%.0f', ttl_ms + 1000 * math.max(0, open_s))
  grown = grown + keep_picture(image, KEYS[13], stage .. ' ' .. id, picture, now, lives_ms)
end

-- The keeper answered first. Its owner, and nobody who was fenced out, may leave the better picture.
local function upgrade(record, image, id, how, picture, gpu_s)
  redis.call('HDEL', record, 'overtaken')
  redis.call('HINCRBYFLOAT', KEYS[12], 'wasted_s', gpu_s)
  if how == 'heavy' then
    keep(image, id, picture, 0)
    redis.call('HSET', record, 'upgraded', '1')
    count('upgraded')
    announce(KEYS[11], 'type', 'upgraded', 'id', id)
  end
  return 2
end

local function escalate(class, record, id, score, fields)
  local new = redis.call('XADD', KEYS[3 + class], '*', unpack(fields))
  redis.call('HSET', record, 'stage', 'heavy', 'entry', new, 'light', '1')
  announce(KEYS[11], 'type', 'light', 'id', id, 'score', score)
  count('escalated')
end

-- What an entry by hand ends as that claims a light picture which nobody made.
local WITHOUT_LIGHT = {deadline = {'dropped', 'deadline'}, heavy_failed = {'failed', 'error'}}

local function commit(hop, record, image)
  local class, entry, id, how, why, picture, gpu_s, score, fields, letter = unpack(hop)
  class = class + 1
  local known = redis.call('HMGET', record, 'state', 'entry', 'overtaken', 'deadline', 'light', 'stage', 'class')
  local same = is_of(KEYS[class], entry, known[2], known[6], known[7])
  if not held[class .. entry] then
    if not same or known[3] ~= consumer then return 0 end
    return upgrade(record, image, id, how, picture, gpu_s)
  end
  if not known[1] then return -1 end
  local stale = known[1] ~= 'open' or not same
  if stale and why == 'malformed' then -- it took the id of another prompt, which is none the worse for it
    lament(KEYS[10], outcome_of(fields, how, why, now), letter)
  elseif not stale then
    if how == 'light' and stage == 'heavy' and known[5] ~= '1' then how, why = unpack(WITHOUT_LIGHT[why] or WITHOUT_LIGHT.deadline) end
    keep(image, id, picture, how == '' and (tonumber(known[4]) or now) - now or 0)
    if how == '' then
      escalate(class, record, id, score, fields)
    else
      if #letter > 0 then -- drawn alone, it went wrong
        table.insert(letter, 'attempts')
        table.insert(letter, redis.call('HINCRBY', record, 'attempts', 1))
      end
      finish({record = record, due = KEYS[8], done = KEYS[9], dead = KEYS[10], events = KEYS[11]},
        id, fields, how, why, now, ttl_ms, keep_s, #letter > 0 and letter or nil)
      count(how)
      count(how .. ':' .. why)
    end
  end
  table.insert(finished[class], entry)
  return stale and 0 or 1
end

local replies = {}
for i, hop in ipairs(hops) do
  local went, reply = pcall(commit, hop, KEYS[13 + 2 * i], KEYS[14 + 2 * i])
  if not went then reply = type(reply) == 'table' and reply.err or tostring(reply) end
  replies[i] = reply
end
-- Not an error where somebody overwrote the count: the prompts are settled, and must not stay pending for it.
if grown > 0 then redis.pcall('INCRBY', KEYS[14], grown) end
for name, by in pairs(counts) do redis.call('HINCRBY', KEYS[12], name, by) end
if counts.escalated then wake(KEYS[7]) end
for class = 1, 3 do
  if #finished[class] > 0 then remove(KEYS[class], unpack(finished[class])) end
end
return replies
