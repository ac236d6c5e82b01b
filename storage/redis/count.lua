-- Count one or more messages by the limit rule (models/chat/stranger_limit.py). Scripts are atomic in Redis.
--
-- KEYS  1 since      when this Redis began to count (microseconds, so that no two markers are equal); its
--                    name has the run id
--       2 mine       how many messages the sender sent to the peer
--       3 theirs     how many messages the peer sent to the sender
--       4 mine_seen, 5 theirs_seen   the count was rebuilt from MongoDB, so it is not rebuilt again
-- ARGV  1 run        the run id in the keys' names
--       2 ask        1: the rule may refuse; 0: the caller knows that it cannot
--       3 amount     the number of messages
--       4 limit      how many messages may be sent without an answer
--       5 accepted, 6 refused, 7 kept   lifetimes: of a count after an acceptance, after a refusal,
--                    of the other keys (seconds)
--       8 mine, 9 theirs   counts in MongoDB before `since`, or '' if it was not asked
--
-- Returns {'run', actual run id}        the keys belong to another Redis; nothing was changed
--         {'missing', since}            a count is missing; nothing was changed: ask MongoDB and call again
--         {'accepted', mine, theirs, since}
--         {'refused', mine, theirs, since}

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if run ~= ARGV[1] then
  return {'run', run}
end

local since = redis.call('GET', KEYS[1])
if not since then
  local time = redis.call('TIME')
  since = string.format('%.0f', time[1] * 1000000 + time[2])
  redis.call('SET', KEYS[1], since)
end
redis.call('EXPIRE', KEYS[1], ARGV[7])

local function lost(count, seen, held)
  return not count and held == '' and redis.call('EXISTS', seen) == 0
end

local function rebuilt(key, count, seen, held)
  if count then
    return tonumber(count)
  end
  held = tonumber(held) or 0
  if redis.call('EXISTS', seen) == 1 then
    return 0
  end
  redis.call('SET', seen, 1, 'EX', ARGV[5])
  if held > 0 then
    redis.call('SET', key, held, 'EX', ARGV[5])
  end
  return held
end

local mine, theirs = redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3])
if lost(mine, KEYS[4], ARGV[8]) or lost(theirs, KEYS[5], ARGV[9]) then
  return {'missing', since}
end
mine = rebuilt(KEYS[2], mine, KEYS[4], ARGV[8])
theirs = rebuilt(KEYS[3], theirs, KEYS[5], ARGV[9])

if ARGV[2] == '1' and mine >= tonumber(ARGV[4]) and theirs == 0 then
  redis.call('EXPIRE', KEYS[2], ARGV[6])
  return {'refused', mine, theirs, since}
end
mine = redis.call('INCRBY', KEYS[2], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[5])
return {'accepted', mine, theirs, since}
