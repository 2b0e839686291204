-- Takes or renews a token that only one process may hold: a slot, or the lead of a service.
-- KEYS  1 token key   ARGV  1 token  2 lease_ms   reply 1 held, 0 held by another
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
