-- Hands a batch to an idle worker that holds its slot, or says when to ask again.
-- KEYS  1-3 the stage's streams by class  4 plan  5 slot token  6 wake  7 totals  8 worker  9... the next stage's streams
-- ARGV  1 consumer  2 token  3 batch  4 hold_s  5 allowance_s (for entries written by hand)  6 lease_ms
--       7 '1': suspects too  8... seconds for 1..batch
-- reply {ok | regrouped | not_holder, plan version, now, ask_again_s, prompts that wait for the next stage,
--       class, {id, fields}, class, {id, fields}...}; of an entry above MESSAGE_LIMIT {id, the first fields, its bytes}
local consumer, batch, hold, allowance = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now = server_time()
local version = redis.call('HGET', KEYS[4], 'version') or '0'
if redis.call('GET', KEYS[5]) ~= ARGV[2] then return {'not_holder', version, seconds(now), '0', 0} end
local status = 'ok'
local function service(n) return tonumber(ARGV[7 + n]) end

-- How many entries of a stream are pending and which was handed out last; nil where it has no group.
local function group_in(stream)
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = {}
    for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
    if info.name == GROUP then return info.pending, info['last-delivered-id'] end
  end
end

-- The group of a stream; created again where somebody deleted it.
local function group_of(stream)
  local pending, last = group_in(stream)
  if pending then return pending, last end
  redis.call('XGROUP', 'CREATE', stream, GROUP, '0')
  status = 'regrouped'
  return 0, '0-0'
end

-- How many prompts wait for the next stage; those handed back, or kept for a newer version, wait too.
local function waiting_in(stream)
  local length = redis.call('XLEN', stream)
  return length > 0 and math.max(0, length - in_hands(stream)) or 0
end

local next_waiting = 0
for i = 9, #KEYS do next_waiting = next_waiting + waiting_in(KEYS[i]) end

local queue, limit, suspect = {}, batch + 16, nil
local sizes, looked_at = {{}, {}, {}}, 0 -- bytes

local function size_of(class, entry)
  local known = sizes[class][entry[1]]
  if known then return known end
  local bytes = 0
  for _, part in ipairs(entry[2]) do bytes = bytes + #part end
  sizes[class][entry[1]] = bytes
  return bytes
end

-- Whether to look further: entries of many megabytes, one after the other, would stall the server.
local function looks_on() return #queue < limit and looked_at < LOOK_LIMIT end

local function enqueue(class, entry, fresh)
  local since = tonumber(string.match(entry[1], '^%d+')) / 1000
  local deadline = 0
  for i = 1, #entry[2] - 1, 2 do
    if entry[2][i] == 'deadline' then
      deadline = tonumber(entry[2][i + 1]) or 0
      break
    end
  end
  if deadline <= 0 then deadline = since + allowance end
  looked_at = looked_at + size_of(class, entry)
  queue[#queue + 1] = {class = class, id = entry[1], fresh = fresh, since = since, deadline = deadline}
end

-- Which class goes first: cascade.class_order in Lua; a test holds the two together.
local function class_order(turn)
  if turn % LOWER_EVERY < LOWER_EVERY - 1 then return {1, 2, 3} end
  return math.floor(turn / LOWER_EVERY) % 2 == 0 and {3, 1, 2} or {2, 1, 3}
end

local lengths, present = {}, 0
for class = 1, 3 do
  lengths[class] = redis.call('XLEN', KEYS[class])
  if lengths[class] > 0 then present = present + 1 end
end
-- Turns are counted only while several classes are there: the others need none.
local turns = 'mixed:' .. stage_of(KEYS[1])
local turn = present > 1 and tonumber(redis.call('HGET', KEYS[7], turns)) or 0

for _, class in ipairs(class_order(turn)) do
  local stream = KEYS[class]
  if lengths[class] > 0 and looks_on() and not suspect then
    local pending, last = group_of(stream)
    if pending > 0 then
      local alone = ARGV[7] == '1' and redis.call('XPENDING', stream, GROUP, 'IDLE', RETRY_MS, '-', '+', 1, SUSPECT)
      if alone and alone[1] then suspect = {stream = stream, class = class, id = alone[1][1]} end
      for _, from in ipairs({RETURNED, OURS}) do
        for _, row in ipairs(looks_on() and redis.call('XPENDING', stream, GROUP, '-', '+', limit - #queue, from) or {}) do
          if not looks_on() then break end
          local found = redis.call('XRANGE', stream, row[1], row[1])
          if found[1] then enqueue(class, found[1], false)
          else redis.call('XACK', stream, GROUP, row[1]) end -- deleted by hand while it waited
        end
      end
    end
    local step, more = 1, true
    while more and looks_on() do -- not asking for length > pending: a pending entry may have been deleted by hand
      local count = math.min(step, limit - #queue)
      local found = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', count)
      for _, entry in ipairs(found) do enqueue(class, entry, true) end
      more, step = #found == count, 8 * step
      if more then last = found[count][1] end
    end
  end
end

local reply = {status, version, seconds(now), '0', next_waiting}

-- What workers get to see of an entry that is too large to be a prompt.
local function beginning(fields)
  local kept, room = {}, LETTER_LIMIT
  for i = 1, #fields - 1, 2 do
    local name, value = string.sub(fields[i], 1, VALUE_LIMIT), string.sub(fields[i + 1], 1, VALUE_LIMIT)
    room = room - #name - #value
    if room < 0 then break end
    kept[i], kept[i + 1] = name, value
  end
  return kept
end

local function hand_out(class, entry)
  local bytes = size_of(class, entry)
  reply[#reply + 1] = class - 1
  reply[#reply + 1] = bytes <= MESSAGE_LIMIT and entry or {entry[1], beginning(entry[2]), bytes}
end

local function claim(stream, class, id)
  local entries = redis.call('XCLAIM', stream, GROUP, consumer, 0, id)
  if entries[1] then hand_out(class, entries[1])
  else redis.call('XACK', stream, GROUP, id) end
end

-- Who claims lives: an idle worker's last beat may be so long ago that it passes for silent. And a harmless first
-- write: past it, a server at its memory limit lets the script finish.
local function renew() redis.call('PEXPIRE', KEYS[8], ARGV[6]) end

if suspect then
  renew()
  claim(suspect.stream, suspect.class, suspect.id)
  wake(KEYS[6])
  return reply
end
if #queue == 0 then
  redis.call('DEL', KEYS[6])
  return reply
end

-- The same rule as cascade.batch_to_take; a test holds the two together.
local function batch_to_take()
  local places = {}
  for i, item in ipairs(queue) do
    if now + service(1) <= item.deadline then places[#places + 1] = i end
  end
  if #places == 0 then return #queue, 0 end
  local full = math.min(#places, batch)
  local count = full
  local function urgent(n)
    local least = math.huge
    for i = 1, n do least = math.min(least, queue[places[i]].deadline) end
    return least
  end
  while count > 1 and now + service(count) > urgent(count) do count = count - 1 end
  if count == full and count < batch then
    local since = math.huge
    for _, place in ipairs(places) do since = math.min(since, queue[place].since) end
    local latest = math.min(since + hold, urgent(#places) - service(count + 1))
    if now < latest then return 0, latest - now end
  end
  return places[count], 0
end

local take, ask_again = batch_to_take()
reply[4] = seconds(ask_again)
if take > 0 then renew() end
local fresh = {0, 0, 0}
for i = 1, take do
  local item = queue[i]
  if item.fresh then fresh[item.class] = fresh[item.class] + 1
  else claim(KEYS[item.class], item.class, item.id) end
end
for class = 1, 3 do
  if fresh[class] > 0 then
    local read = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', fresh[class], 'STREAMS', KEYS[class], '>')
    for _, entry in ipairs(read and read[1][2] or {}) do hand_out(class, entry) end
  end
end
if take > 0 and present > 1 then redis.call('HINCRBY', KEYS[7], turns, 1) end
if take > 0 and (take < #queue or not looks_on()) then wake(KEYS[6]) end
return reply
