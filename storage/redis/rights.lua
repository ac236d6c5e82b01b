-- Try each command that the stores use, on a key and a channel of its own, since Redis does not tell a user's rights. A
-- script has the rights of its user.
--
-- KEYS  1 a key that does not exist
-- ARGV  1 a channel
--
-- Returns the name and Redis's error for each command that was refused. The key is deleted afterwards.

local key, channel, refused = KEYS[1], ARGV[1], {}
local commands = {
  {'PING'}, {'TIME'}, {'INFO', 'server'}, {'PUBLISH', channel, ''}, {'PUBSUB', 'NUMSUB', channel},
  {'SET', key, 1, 'PX', 1000}, {'GET', key}, {'MGET', key}, {'INCR', key}, {'INCRBY', key, 1}, {'DECR', key},
  {'EXPIRE', key, 1}, {'PEXPIRE', key, 1000}, {'TTL', key}, {'PTTL', key}, {'EXISTS', key}, {'RENAME', key, key},
  {'GETDEL', key}, {'DEL', key}, {'SADD', key, 1}, {'SCARD', key}, {'SISMEMBER', key, 1}, {'DEL', key},
}
for _, command in ipairs(commands) do
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err then
    refused[#refused + 1] = {command[1], answer.err}
  end
end
return refused
