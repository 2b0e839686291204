-- Says what a worker or a node is; the key is its lease.
-- KEYS  1 key  2 for a worker: a stream of its stage, whose group lists the workers
-- ARGV  1 ttl_ms  2 name  3... fields
redis.call('DEL', KEYS[1]) -- first: past it, a server at its memory limit lets the script finish
if KEYS[2] then redis.call('XGROUP', 'CREATECONSUMER', KEYS[2], GROUP, ARGV[2]) end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
