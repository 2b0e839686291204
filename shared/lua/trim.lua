-- Takes pictures out of the accounts that are gone and, while the rest exceeds the budget, those it is given, the
-- oldest first; one that was fetched since takes its new place instead.
-- KEYS  1 pictures  2 picture bytes  3... image of each member
-- ARGV  1 budget in bytes  2... members, the oldest first
-- reply {members that left, members that moved}
expect({[KEYS[1]] = 'zset', [KEYS[2]] = 'string'})
local now, budget = server_time(), tonumber(ARGV[1])
local function bytes_of(member) return tonumber(string.match(member, '^%d+')) or 0 end

local count = redis.call('GET', KEYS[2]) or '0'
local kept, gone, moved = tonumber(count), 0, 0
if not string.match(count, '^%-?%d+$') or #count > COUNT_DIGITS then -- somebody overwrote it: counted anew
  kept = 0
  for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do kept = kept + bytes_of(member) end
  redis.call('SET', KEYS[2], string.format('%.0f', kept))
end

local function forget(member)
  if redis.call('ZREM', KEYS[1], member) == 1 then
    local bytes = bytes_of(member)
    kept = kept - bytes
    redis.call('DECRBY', KEYS[2], bytes)
    gone = gone + 1
  end
end

for i = 2, #ARGV do
  local member, key = ARGV[i], KEYS[1 + i]
  local idle = redis.pcall('OBJECT', 'IDLETIME', key) -- unknown where the server counts how often, not when
  if not idle then
    forget(member)
  elseif kept > budget then
    local fetched = type(idle) == 'number' and now - idle or 0
    -- The server's clock of accesses ticks in seconds.
    if fetched > (tonumber(redis.call('ZSCORE', KEYS[1], member)) or 0) + 2 then
      moved = moved + redis.call('ZADD', KEYS[1], 'XX', 'CH', seconds(fetched), member)
    else
      redis.call('DEL', key)
      forget(member)
    end
  end
end
return {gone, moved}
