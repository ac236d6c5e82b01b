-- Add to a number that expires some time after it was created.
--
-- KEYS  1 the number
-- ARGV  1 the amount, 2 the lifetime (seconds)
--
-- Returns the sum and its remaining lifetime (milliseconds).

local total = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return {total, redis.call('PTTL', KEYS[1])}
