-- Notes that an account writes to a user who has never answered.
--
-- KEYS  1 the users to whom the account has written, a set
-- ARGV  1 the user
--       2 how many there may be
--       3 for how long they are counted, from the first (seconds)
--
-- Returns -1, or for how many milliseconds there is no room for one more.

if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then
  return -1
end
local count = redis.call('SCARD', KEYS[1])
if count >= tonumber(ARGV[2]) then
  return math.max(0, redis.call('PTTL', KEYS[1]))
end
redis.call('SADD', KEYS[1], ARGV[1])
if count == 0 then
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return -1
