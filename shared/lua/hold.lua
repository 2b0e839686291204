-- Takes or renews a token that only one process may hold: a slot, or the lead of a service.
-- KEYS  1 token key   ARGV  1 token  2 lease_ms   reply 1 held, 0 held by another
local holder = redis.call('GET', KEYS[1])
if not holder then
  redis.call('DEL', KEYS[1]) -- harmless: past a first write, a server at its memory limit lets the script finish
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
if holder ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2]) -- renewing writes nothing new: it works at the memory limit too
return 1
