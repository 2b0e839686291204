-- Ends a prompt that this consumer holds.
-- KEYS  1 stream  2 record  3 due  4 done  5 dead  6 events  7 totals  8 image
-- ARGV  1 entry  2 consumer  3 id  4 end  5 why  6 picture  7 ttl_ms  8 done_keep_s  9 gpu_s of this visit  10... fields
-- reply 1 done, 0 no longer ours, 2 overtaken by the keeper and stored as an upgrade, -1 no record (adopt it first)
local entry, consumer, id = ARGV[1], ARGV[2], ARGV[3]
local record = redis.call('HMGET', KEYS[2], 'state', 'entry', 'overtaken')
if owner(KEYS[1], entry) ~= consumer then
  -- The keeper answered first. Its owner, and nobody who was fenced out, may leave the better picture.
  if record[3] ~= consumer or record[2] ~= entry then return 0 end
  expect({[KEYS[6]] = 'stream', [KEYS[7]] = 'hash'})
  redis.call('HDEL', KEYS[2], 'overtaken')
  redis.call('HINCRBYFLOAT', KEYS[7], 'wasted_s', ARGV[9])
  if ARGV[4] == 'heavy' then
    if ARGV[6] ~= '' then redis.call('SET', KEYS[8], ARGV[6], 'PX', ARGV[7]) end
    redis.call('HINCRBY', KEYS[7], 'upgraded', 1)
    announce(KEYS[6], 'type', 'upgraded', 'id', id)
  end
  return 2
end
if not record[1] then return -1 end
if record[1] ~= 'open' or record[2] ~= entry then remove(KEYS[1], entry) return 0 end
expect({[KEYS[3]] = 'zset', [KEYS[4]] = 'stream', [KEYS[5]] = 'stream', [KEYS[6]] = 'stream', [KEYS[7]] = 'hash'})
-- A harmless first write: past it, a server at its memory limit lets the script finish.
redis.call('XCLAIM', KEYS[1], GROUP, consumer, 0, entry, 'JUSTID')
if ARGV[6] ~= '' then redis.call('SET', KEYS[8], ARGV[6], 'PX', ARGV[7]) end
local keys = {record = KEYS[2], due = KEYS[3], done = KEYS[4], dead = KEYS[5], events = KEYS[6], totals = KEYS[7]}
finish(keys, id, {unpack(ARGV, 10)}, ARGV[4], ARGV[5], server_time(), ARGV[7], tonumber(ARGV[8]))
remove(KEYS[1], entry)
return 1
