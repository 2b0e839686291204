-- Publishes prompts: each gets its record (the idempotence gate), its place in `due` and its entry, or is refused
-- because no stage it may start on can make its deadline, or because memory runs short.
-- KEYS  1-3 light streams  4-6 heavy streams  7 due  8 totals  9 plan  10 wake:light  11 wake:heavy
--       12 memory  13... records
-- ARGV  1 msgpack: prompts, each {id, stage number (0 light, 1 heavy), class, allowance_s, lag_s, flat fields}
-- reply per prompt: {'published', deadline} or {'published', deadline, class, entry, id of the light prompt that it pushed
--       past its deadline}, {'known', state}, {'refused', retry_after_s, why}
local now = server_time()
local kinds = {[KEYS[7]] = 'zset', [KEYS[8]] = 'hash', [KEYS[10]] = 'list', [KEYS[11]] = 'list'}
for i = 1, 6 do kinds[KEYS[i]] = 'stream' end
for i = 12, #KEYS do kinds[KEYS[i]] = 'hash' end
expect(kinds)

-- Asking the server costs as much as a publish: the answer is good for a moment.
local function memory_runs_short()
  local known = redis.call('HGET', KEYS[12], 'short')
  if known then return known == '1' end
  local info = redis.call('INFO', 'memory')
  local function amount(name) return tonumber(string.match(info, name .. ':(%d+)')) or 0 end
  local limit, used = amount('maxmemory'), amount('used_memory') - amount('mem_not_counted_for_evict')
  local short = limit > 0 and used >= MEMORY_PERCENT / 100 * limit
  redis.call('HSET', KEYS[12], 'short', short and '1' or '0')
  redis.call('PEXPIRE', KEYS[12], MEMORY_LOOK_MS)
  return short
end

-- What the plan says of a stage, and how many prompts stand in each of its classes; each is looked up once.
local ways = {}
local function way(stage)
  if not ways[stage] then
    local name = stage == 0 and 'light' or 'heavy'
    local plan = redis.call('HMGET', KEYS[9], name .. '_workers', name .. '_batch', name .. '_service_s')
    local service_s = tonumber(plan[3]) or 0
    local found = {service_s = service_s, length = {}, running = {}}
    found.per_s = (tonumber(plan[1]) or 0) * (tonumber(plan[2]) or 0) / math.max(service_s, 1e-6)
    for class = 0, 2 do found.length[class] = redis.call('XLEN', KEYS[stage * 3 + class + 1]) end
    ways[stage] = found
  end
  return ways[stage]
end

-- Of a class: how many are in a worker's hands.
local function running(stage, class)
  local found, stream = way(stage), KEYS[stage * 3 + class + 1]
  if not found.running[class] then
    found.running[class] = found.length[class] > 0 and in_hands(stream) or 0
  end
  return found.running[class]
end

-- Seconds until the stage has drawn one more prompt of a class: cascade.door_wait_s in Lua; a test holds the two together.
local function wait_s(stage, class, itself)
  local found, ahead, lower = way(stage), -itself, 0
  if found.per_s <= 0 then return math.huge end
  for each = 0, 2 do
    if each <= class then
      ahead = ahead + found.length[each]
    elseif found.length[each] > 0 then
      ahead = ahead + running(stage, each)
      lower = lower + found.length[each] - running(stage, each)
    end
  end
  return (ahead + math.min(lower, ahead / (LOWER_EVERY - 1))) / found.per_s + found.service_s
end

-- Seconds until this one can be drawn on a stage that it may start on; nil where the plan does not say.
local function soonest(stage, class)
  local wait = wait_s(0, class, 0)
  if stage == 1 then wait = math.min(wait, wait_s(1, class, 0)) end
  return wait < math.huge and wait or nil
end

-- Whether not even an empty stage makes it, so that coming again later is in vain.
local function never(stage, allowance)
  local least = way(0).per_s > 0 and way(0).service_s or math.huge
  if stage == 1 and way(1).per_s > 0 then least = math.min(least, way(1).service_s) end
  return least > allowance
end

-- Who came last to the lowest class and waits for light, where that one can no longer be drawn in time.
local passed = {}
local function pushed_out(above)
  if way(0).per_s <= 0 then return nil end
  for class = 2, above + 1, -1 do
    local stream, length = KEYS[class + 1], way(0).length
    local last = length[class] > 0 and redis.call('XREVRANGE', stream, passed[class] or '+', '-', 'COUNT', 1)[1]
    if last then
      local fields, holder = {}, owner(stream, last[1])
      for i = 1, #last[2], 2 do fields[last[2][i]] = last[2][i + 1] end
      local deadline = tonumber(fields.deadline)
      if waits(holder) and fields.id and deadline and now + wait_s(0, class, 1) > deadline then
        length[class] = length[class] - 1
        passed[class] = '(' .. last[1]
        return class, last[1], fields.id
      end
    end
  end
end

-- A harmless first write: past it, a server at its memory limit lets the script finish.
redis.call('PERSIST', KEYS[8])
local short = memory_runs_short()
local replies, counts, woken = {}, {}, {}
local function count(name) counts[name] = (counts[name] or 0) + 1 end

local function refuse(retry_s, why)
  count('refused')
  count('refused:' .. why)
  return {'refused', seconds(retry_s), why}
end

local function admit(record, prompt)
  local id, stage, class, allowance, lag, given = unpack(prompt)
  local deadline = seconds(now + allowance - lag)
  local fields = {'published', seconds(now), 'deadline', deadline}
  for i = 1, #given do fields[4 + i] = given[i] end
  local entry = redis.call('XADD', KEYS[stage * 3 + class + 1], '*', unpack(fields))
  redis.call('HSET', record, 'state', 'open', 'stage', stage == 0 and 'light' or 'heavy', 'class', class,
    'entry', entry, 'published', seconds(now), 'deadline', deadline)
  redis.call('ZADD', KEYS[7], deadline, id)
  count('published')
  woken[stage] = true
  local length = way(stage).length
  length[class] = length[class] + 1
  local reply = {'published', deadline}
  -- The one pushed out is ended by a script that has its record among its keys.
  if stage == 0 and class < 2 then for _, part in ipairs({pushed_out(class)}) do reply[#reply + 1] = part end end
  return reply
end

for number, prompt in ipairs(cmsgpack.unpack(ARGV[1])) do
  -- cascade.first_stage in Lua: while heavy has no worker, nobody skips light.
  if prompt[2] == 1 and way(1).per_s <= 0 and way(0).per_s > 0 then prompt[2] = 0 end
  local _, stage, class, allowance, lag = unpack(prompt)
  local record = KEYS[12 + number]
  local state = redis.call('HGET', record, 'state')
  local wait = soonest(stage, class)
  if state then replies[number] = {'known', state}
  elseif short then replies[number] = refuse(MEMORY_RETRY_S, 'memory')
  elseif wait and never(stage, allowance) then replies[number] = refuse(0, 'allowance')
  elseif wait and wait > allowance - lag then replies[number] = refuse(wait - (allowance - lag), 'deadline')
  else replies[number] = admit(record, prompt) end
end
local offered = (counts.published or 0) + (counts.refused or 0)
if offered > 0 then redis.call('HINCRBY', KEYS[8], 'offered', offered) end
for name, by in pairs(counts) do redis.call('HINCRBY', KEYS[8], name, by) end
if woken[0] then wake(KEYS[10]) end
if woken[1] then wake(KEYS[11]) end
return replies
