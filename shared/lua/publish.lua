-- Publishes prompts: each gets its record (the idempotence gate), its place in `due` and its entry, or is
-- refused because the light stage cannot make its deadline.
-- KEYS  1-3 light streams  4-6 heavy streams  7 due  8 totals  9 plan  10 wake:light  11 wake:heavy  12... records
-- ARGV  1 msgpack: prompts, each {id, stage number (0 light, 1 heavy), class, allowance_s, lag_s, flat fields}
-- reply per prompt: {'published' | 'known' | 'refused', deadline or state or retry_after_s}
local now = server_time()
local kinds = {[KEYS[7]] = 'zset', [KEYS[8]] = 'hash', [KEYS[10]] = 'list', [KEYS[11]] = 'list'}
for i = 1, 6 do kinds[KEYS[i]] = 'stream' end
for i = 12, #KEYS do kinds[KEYS[i]] = 'hash' end
expect(kinds)
local plan = redis.call('HMGET', KEYS[9], 'light_workers', 'light_batch', 'light_service_s')
local light_s = tonumber(plan[3]) or 0
local per_s = (tonumber(plan[1]) or 0) * (tonumber(plan[2]) or 0) / math.max(light_s, 1e-6)
local backlog = 0
for i = 1, 3 do backlog = backlog + redis.call('XLEN', KEYS[i]) end

local replies, counts = {}, {published = 0, refused = 0, stages = {0, 0}}
for number, prompt in ipairs(cmsgpack.unpack(ARGV[1])) do
  local record = KEYS[11 + number]
  local id, stage, class, allowance, lag, given = unpack(prompt)
  local state = redis.call('HGET', record, 'state')
  local wait = 0
  if per_s > 0 then wait = (backlog + counts.stages[1]) / per_s + light_s end
  if state then
    replies[#replies + 1] = {'known', state}
  elseif per_s > 0 and wait > allowance - lag then
    counts.refused = counts.refused + 1
    replies[#replies + 1] = {'refused', seconds(wait - (allowance - lag))}
  else
    local deadline = seconds(now + allowance - lag)
    local fields = {'published', seconds(now), 'deadline', deadline}
    for i = 1, #given do fields[4 + i] = given[i] end
    local entry = redis.call('XADD', KEYS[stage * 3 + class + 1], '*', unpack(fields))
    redis.call('HSET', record, 'state', 'open', 'stage', stage == 0 and 'light' or 'heavy', 'class', class,
      'entry', entry, 'published', seconds(now), 'deadline', deadline)
    redis.call('ZADD', KEYS[7], deadline, id)
    counts.published = counts.published + 1
    counts.stages[stage + 1] = counts.stages[stage + 1] + 1
    replies[#replies + 1] = {'published', deadline}
  end
end
if counts.published + counts.refused > 0 then
  redis.call('HINCRBY', KEYS[8], 'offered', counts.published + counts.refused)
  redis.call('HINCRBY', KEYS[8], 'published', counts.published)
end
if counts.refused > 0 then redis.call('HINCRBY', KEYS[8], 'refused', counts.refused) end
if counts.stages[1] > 0 then wake(KEYS[10]) end
if counts.stages[2] > 0 then wake(KEYS[11]) end
return replies
