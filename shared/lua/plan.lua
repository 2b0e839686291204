-- Puts a plan in force, if its maker still leads and it is newer than the one in force.
-- KEYS  1 leader token  2 plan  3 plans  4 events  5 totals  6-7 wake lists
-- ARGV  1 token  2 version  3 view  4 how many workers to wake  5... fields of the plan
-- reply 1 in force, 0 not the leader, -1 a newer plan stands
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
-- A version that somebody spoilt must not keep every later plan out.
local stands = tonumber(redis.call('HGET', KEYS[2], 'version') or 0) or 0
if stands >= tonumber(ARGV[2]) and stands <= LATEST_VERSION then return -1 end
expect({[KEYS[3]] = 'stream', [KEYS[4]] = 'stream', [KEYS[5]] = 'hash'})
-- Slots that change their stage, for the people who watch a fleet flap.
local known, switched = redis.call('HGETALL', KEYS[2]), 0
local assigned = {}
for i = 1, #known, 2 do assigned[known[i]] = known[i + 1] end
for i = 5, #ARGV, 2 do
  local was = string.find(ARGV[i], '^slot:') and assigned[ARGV[i]]
  if was and was ~= ARGV[i + 1] then switched = switched + 1 end
end
-- A harmless first write: past it, a server at its memory limit lets the script finish.
redis.call('PERSIST', KEYS[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', PLANS_KEPT, '*', 'view', ARGV[3], unpack(ARGV, 5))
redis.pcall('HINCRBY', KEYS[5], 'plans', 1) -- a count that somebody overwrote must keep no plan out
if switched > 0 then redis.pcall('HINCRBY', KEYS[5], 'switched', switched) end
announce(KEYS[4], 'type', 'plan', 'version', ARGV[2])
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 5))
for _ = 1, tonumber(ARGV[4]) do
  wake(KEYS[6])
  wake(KEYS[7])
end
return 1
