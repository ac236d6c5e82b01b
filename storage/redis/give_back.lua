-- Give back one message that count.lua counted, if it was counted by this run of this Redis.
--
-- KEYS  1 since, 2 mine
-- ARGV  1 run, 2 the value of `since` when the message was counted
--
-- Never creates a key, never goes below zero, and keeps the lifetime.

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if run == ARGV[1] and redis.call('GET', KEYS[1]) == ARGV[2] and tonumber(redis.call('GET', KEYS[2]) or 0) > 0 then
  redis.call('DECR', KEYS[2])
end
return redis.status_reply('OK')
