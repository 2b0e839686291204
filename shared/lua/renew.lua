-- Renews a worker's lease and slot, and says which of its entries are still its own.
-- KEYS  1 worker  2 slot token  3-5 the stage's streams by class  6 plan
-- ARGV  1 consumer  2 token  3 lease_ms  4... class, entry pairs
-- reply {1 if the lease still stood, 1 if the slot is ours, the plan's version, class and entry of what is still ours...}
-- A group that was deleted and made again knows no worker until it reads: the group is the list of workers.
redis.pcall('XGROUP', 'CREATECONSUMER', KEYS[4], GROUP, ARGV[1])
local alive = redis.call('PEXPIRE', KEYS[1], ARGV[3])
local reply = {alive, 0, redis.call('HGET', KEYS[6], 'version') or '0'}
for i = 4, #ARGV, 2 do
  if owner(KEYS[3 + tonumber(ARGV[i])], ARGV[i + 1]) == ARGV[1] then
    reply[#reply + 1] = ARGV[i]
    reply[#reply + 1] = ARGV[i + 1]
  end
end
if ARGV[2] == '' then return reply end
local token = redis.call('GET', KEYS[2])
if token == ARGV[2] then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  reply[2] = 1
elseif not token and #reply > 3 then
  -- It ran out while nobody could renew it, but who draws here what is still its own draws on.
  if not redis.pcall('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]).err then reply[2] = 1 end
end
return reply
