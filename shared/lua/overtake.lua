-- The keeper ends a prompt it does not own, waiting or running. The gate is the record's state.
-- KEYS  1 stream  2 record  3 due  4 done  5 dead  6 events  7 totals  8 light image
-- ARGV  1 entry  2 id  3 end  4 why  5 ttl_ms  6 done_keep_s  7 '1': only one that waits
-- reply 1 done, 0 it moved on meanwhile, or is being drawn and must wait for that
local entry, id = ARGV[1], ARGV[2]
local record = redis.call('HMGET', KEYS[2], 'state', 'entry', 'published', 'deadline', 'stage', 'class')
if record[1] ~= 'open' then redis.call('ZREM', KEYS[3], id) return 0 end
if not is_of(KEYS[1], entry, record[2], record[5], record[6]) then return 0 end
expect({[KEYS[1]] = 'stream', [KEYS[3]] = 'zset', [KEYS[4]] = 'stream', [KEYS[5]] = 'stream', [KEYS[6]] = 'stream',
  [KEYS[7]] = 'hash'})
local holder = owner(KEYS[1], entry)
local drawn = not waits(holder)
if drawn and ARGV[7] == '1' then return 0 end
local found = redis.call('XRANGE', KEYS[1], entry, entry)
-- An entry deleted by hand is answered all the same, from its record.
local fields = stamped(found[1] and found[1][2] or {}, {id = id, published = record[3], deadline = record[4]})
-- A harmless first write: past it, a server at its memory limit lets the script finish.
redis.call('PERSIST', KEYS[2])
-- Its owner may still leave the better picture, but not of a prompt that nobody wants any more.
if drawn and ARGV[3] ~= 'cancelled' then redis.call('HSET', KEYS[2], 'overtaken', holder) end
local keys = {record = KEYS[2], due = KEYS[3], done = KEYS[4], dead = KEYS[5], events = KEYS[6]}
finish(keys, id, fields, ARGV[3], ARGV[4], server_time(), ARGV[5], tonumber(ARGV[6]))
if ARGV[3] == 'light' then redis.call('PEXPIRE', KEYS[8], ARGV[5]) end -- the kept picture is the answer
redis.call('HINCRBY', KEYS[7], ARGV[3], 1)
redis.call('HINCRBY', KEYS[7], ARGV[3] .. ':' .. ARGV[4], 1)
remove(KEYS[1], entry)
return 1
