-- Gives a token up, if it is ours.
-- KEYS  1 token key   ARGV  1 token   reply 1 given up, 0 not ours
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
