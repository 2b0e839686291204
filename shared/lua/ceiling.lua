-- Remembers how many prompts of a batch fit a GPU's memory; the lowest number wins, and each finding prolongs it.
-- KEYS  1 ceiling   ARGV  1 batch  2 lifetime_ms   reply the lowest known
local known = tonumber(redis.call('GET', KEYS[1]) or '') or tonumber(ARGV[1])
local lowest = math.max(1, math.min(known, tonumber(ARGV[1])))
redis.call('DEL', KEYS[1]) -- first: past it, a server at its memory limit lets the script finish
redis.call('SET', KEYS[1], lowest, 'PX', ARGV[2])
return lowest
