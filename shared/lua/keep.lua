-- Keeps pictures, and accounts for them.
-- KEYS  1 pictures  2 picture bytes  3... images
-- ARGV  of each image: '<stage> <id>', how many ms it lives, picture
-- reply bytes by which the accounts grew
expect({[KEYS[1]] = 'zset', [KEYS[2]] = 'string'})
local now, grown = server_time(), 0
for i = 1, #ARGV, 3 do
  grown = grown + keep_picture(KEYS[3 + (i - 1) / 3], KEYS[1], ARGV[i], ARGV[i + 2], now, ARGV[i + 1])
end
local total = redis.pcall('INCRBY', KEYS[2], grown)
return type(total) == 'number' and total or grown
