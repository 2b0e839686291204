-- Which entries of a stream wait, oldest first; those that were handed back wait too.
-- KEYS  1 stream
-- ARGV  1 how many at most
-- reply {now, entry...}; the entries' fields stay here
local held, count = {}, 0
local rows = redis.pcall('XPENDING', KEYS[1], GROUP, '-', '+', 10000)
if rows.err and not string.find(rows.err, 'NOGROUP', 1, true) then error(rows.err, 0) end
for _, row in ipairs(rows.err and {} or rows) do
  if not waits(row[2]) then
    held[row[1]] = true
    count = count + 1
  end
end
local reply = {seconds(server_time())}
for _, row in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1] + count)) do
  if not held[row[1]] and #reply <= tonumber(ARGV[1]) then reply[#reply + 1] = row[1] end
end
return reply
