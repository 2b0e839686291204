-- Gives an entry that somebody wrote by hand what the door would have given it.
-- KEYS  1 record  2 due  3 totals
-- ARGV  1 id  2 stage  3 class  4 entry  5 published  6 deadline
-- reply {published, deadline, 1 if the prompt has a light picture}
local known = redis.call('HMGET', KEYS[1], 'published', 'deadline', 'light')
if known[1] then
  if not (tonumber(known[1]) and tonumber(known[2] or '')) then error('the record ' .. KEYS[1] .. ' cannot be read', 0) end
  return {known[1], known[2], known[3] == '1' and 1 or 0}
end
expect({[KEYS[2]] = 'zset', [KEYS[3]] = 'hash'})
-- A harmless first write: past it, a server at its memory limit lets the script finish.
redis.call('PERSIST', KEYS[1])
redis.call('HSET', KEYS[1], 'state', 'open', 'stage', ARGV[2], 'class', ARGV[3], 'entry', ARGV[4],
  'published', ARGV[5], 'deadline', ARGV[6])
redis.call('ZADD', KEYS[2], ARGV[6], ARGV[1])
redis.call('HINCRBY', KEYS[3], 'offered', 1)
redis.call('HINCRBY', KEYS[3], 'published', 1)
return {ARGV[5], ARGV[6], 0}
