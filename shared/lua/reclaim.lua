-- Takes back what dead consumers held. Alive is who has a worker key; idle time says nothing of that.
-- KEYS  1 stream  2 wake  3 totals  4... worker keys
-- ARGV  consumer names, one per worker key
-- reply how many entries were taken back
local count = 0
for i, consumer in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[3 + i]) == 0 then
    for _, row in ipairs(redis.call('XPENDING', KEYS[1], GROUP, '-', '+', 1000, consumer)) do
      redis.call('XCLAIM', KEYS[1], GROUP, SUSPECT, 0, row[1], 'JUSTID')
      count = count + 1
    end
    -- Deleting a consumer loses what is pending for it: only when nothing is.
    if #redis.call('XPENDING', KEYS[1], GROUP, '-', '+', 1, consumer) == 0 then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], GROUP, consumer)
    end
  end
end
if count > 0 then
  redis.call('HINCRBY', KEYS[3], 'reclaimed', count)
  wake(KEYS[2])
end
return count
