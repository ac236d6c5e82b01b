-- Adds to a number that goes some time after it was begun.
--
-- KEYS  1 the number
-- ARGV  1 how much, 2 for how long it lives (seconds)
--
-- Returns how much it is then, and how long it lives from now on (milliseconds).

local total = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return {total, redis.call('PTTL', KEYS[1])}
