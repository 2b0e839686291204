-- Hops a prompt into the next stage: picture, next entry, record, event, wake-up; acknowledges last.
-- KEYS  1 stream  2 record  3 next stream  4 image  5 wake  6 events  7 totals
-- ARGV  1 entry  2 consumer  3 id  4 picture  5 ttl_ms  6 score  7... fields of the next entry
-- reply 1 done, 0 no longer ours, -1 no record (adopt it first)
local entry, consumer, id = ARGV[1], ARGV[2], ARGV[3]
if owner(KEYS[1], entry) ~= consumer then return 0 end
local record = redis.call('HMGET', KEYS[2], 'state', 'entry')
if not record[1] then return -1 end
if record[1] ~= 'open' or record[2] ~= entry then remove(KEYS[1], entry) return 0 end
expect({[KEYS[3]] = 'stream', [KEYS[5]] = 'list', [KEYS[6]] = 'stream', [KEYS[7]] = 'hash'})
-- A harmless first write: past it, a server at its memory limit lets the script finish.
redis.call('XCLAIM', KEYS[1], GROUP, consumer, 0, entry, 'JUSTID')
if ARGV[4] ~= '' then redis.call('SET', KEYS[4], ARGV[4], 'PX', ARGV[5]) end
redis.call('HINCRBY', KEYS[7], 'escalated', 1)
local new = redis.call('XADD', KEYS[3], '*', unpack(ARGV, 7))
redis.call('HSET', KEYS[2], 'stage', 'heavy', 'entry', new, 'light', '1')
announce(KEYS[6], 'type', 'light', 'id', id, 'score', ARGV[6])
wake(KEYS[5])
remove(KEYS[1], entry)
return 1
