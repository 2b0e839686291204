-- Takes an order: what stands ordered changes, and the audit says who changed it, together or not at all.
-- KEYS  1 orders  2 audit
-- ARGV  1 who  2 what, in words  3 how many fields follow with their values  4... field, value; then fields taken back
-- reply 1 changed, 0 it stood so already
local last = 3 + 2 * tonumber(ARGV[3])
local given, back = {}, {}
for i = 4, last, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then
    given[#given + 1] = ARGV[i]
    given[#given + 1] = ARGV[i + 1]
  end
end
for i = last + 1, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then back[#back + 1] = ARGV[i] end
end
if #given + #back == 0 then return 0 end
-- A harmless first write: past it, a server at its memory limit lets the script finish.
redis.call('PERSIST', KEYS[1])
-- Before the orders: where it can't be written down, it is not given.
redis.call('XADD', KEYS[2], 'MAXLEN', '~', AUDIT_KEPT, '*', 'who', ARGV[1], 'what', ARGV[2])
if #given > 0 then redis.call('HSET', KEYS[1], unpack(given)) end
if #back > 0 then redis.call('HDEL', KEYS[1], unpack(back)) end
return 1
