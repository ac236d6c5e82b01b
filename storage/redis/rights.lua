-- Try each command that the stores use, on a key and a channel of its own, since Redis does not tell what its user may
-- do, nor whether it takes writes. A script has the rights of its user.
--
-- KEYS  1 a key that nothing else uses
-- ARGV  1 a channel that nothing else uses
--
-- Returns the name in ACL rules and Redis's error for each command that was refused. The key is deleted afterwards.

local key, channel, refused = KEYS[1], ARGV[1], {}
local commands = {
  {'PING'}, {'TIME'}, {'INFO', 'server'}, {'PUBLISH', channel, ''}, {'PUBSUB', 'NUMSUB', channel},
  {'SET', key, 1, 'PX', 1000}, {'GET', key}, {'INCRBY', key, 1}, {'DECR', key}, {'PTTL', key}, {'EXISTS', key},
  {'RENAME', key, key}, {'GETDEL', key}, {'SADD', key, 1}, {'EXPIRE', key, 1}, {'SCARD', key}, {'SISMEMBER', key, 1},
  {'DEL', key},
}
for _, command in ipairs(commands) do
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err then
    local name = command[1] == 'PUBSUB' and 'pubsub|numsub' or string.lower(command[1])
    refused[#refused + 1] = {name, answer.err}
  end
end
return refused
