-- Keeps pictures, and accounts for them.
-- KEYS  1 pictures  2 picture bytes  3... images
-- ARGV  1 ttl_ms  2... '<stage> <id>', picture
-- reply bytes by which the accounts grew
expect({[KEYS[1]] = 'zset', [KEYS[2]] = 'string'})
local now, grown = server_time(), 0
for i = 2, #ARGV, 2 do
  grown = grown + keep_picture(KEYS[2 + i / 2], KEYS[1], ARGV[i], ARGV[i + 1], now, ARGV[1])
end
local total = redis.pcall('INCRBY', KEYS[2], grown)
return type(total) == 'number' and total or grown
