-- Count a user who has never answered and to whom an account writes.
--
-- KEYS  1 the set of users to whom the account has written
-- ARGV  1 the user
--       2 the maximum size of the set
--       3 the lifetime of the set, from its first entry (seconds)
--
-- Returns -1, or, if the set is full, in how many milliseconds it expires.

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
