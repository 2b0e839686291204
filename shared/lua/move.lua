-- Moves a prompt that waits for heavy, without a picture, to light while light can still draw it: by the keeper, or by
-- the worker that would draw it too late.
-- KEYS  1 heavy stream  2 record  3 light stream  4 wake:light  5 ARGV[3]'s key, if ARGV[4] is given
-- ARGV  1 entry  2 id  3 a worker that it may be taken from  4 only where that one's lease has less than so many ms left
-- reply 1 done, 0 it moved on meanwhile, or the name of the worker that draws it
local entry = ARGV[1]
local record = redis.call('HMGET', KEYS[2], 'state', 'entry', 'published', 'deadline', 'stage', 'class')
if record[1] ~= 'open' or not is_of(KEYS[1], entry, record[2], record[5], record[6]) then return 0 end
local holder = owner(KEYS[1], entry)
if not waits(holder) then
  if holder ~= ARGV[3] or (ARGV[4] and redis.call('PTTL', KEYS[5]) >= tonumber(ARGV[4])) then return holder end
end
local found = redis.call('XRANGE', KEYS[1], entry, entry)
if not found[1] then return 0 end
expect({[KEYS[3]] = 'stream', [KEYS[4]] = 'list'})
local known = {id = ARGV[2], published = record[3], deadline = record[4], route = 'heavy'}
local fields = stamped(found[1][2], known)
-- A harmless first write: past it, a server at its memory limit lets the script finish.
redis.call('PERSIST', KEYS[2])
local new = redis.call('XADD', KEYS[3], '*', unpack(fields))
redis.call('HSET', KEYS[2], 'stage', 'light', 'entry', new)
wake(KEYS[4])
remove(KEYS[1], entry)
return 1
