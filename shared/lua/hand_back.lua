-- Hands entries back to their queue; they keep their order and id.
-- KEYS  1-3 the stage's streams by class  4 wake
-- ARGV  1 consumer  2 reserved consumer that receives them  3 ms they count as idle  4... class, entry pairs; none: all
--       it holds
-- reply how many were still ours
local count = 0
if #ARGV == 3 then -- after a broken connection a consumer may hold what it never heard of
  for class = 1, 3 do
    local rows = redis.pcall('XPENDING', KEYS[class], GROUP, '-', '+', 1000, ARGV[1])
    for _, row in ipairs(rows.err and {} or rows) do
      redis.call('XCLAIM', KEYS[class], GROUP, ARGV[2], 0, row[1], 'JUSTID')
      count = count + 1
    end
  end
end
for i = 4, #ARGV, 2 do
  local stream = KEYS[tonumber(ARGV[i]) + 1]
  if owner(stream, ARGV[i + 1]) == ARGV[1] then
    redis.call('XCLAIM', stream, GROUP, ARGV[2], 0, ARGV[i + 1], 'IDLE', ARGV[3], 'JUSTID')
    count = count + 1
  end
end
if count > 0 then wake(KEYS[4]) end
return count
