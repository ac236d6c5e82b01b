-- Publishes many things with one call; atomic, so that all of them keep their order.
--
-- ARGV  for each of them: payload, how many of its channels lead to the one it is for, how many channels, the
--       channels, those first
--
-- Returns for each how many processes heard of it on the channels that lead to the one it is for.

local heard, i = {}, 1
while i <= #ARGV do
  local payload, near, all = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local count = 0
  for n = 1, all do
    local processes = redis.call('PUBLISH', ARGV[i + 2 + n], payload)
    if n <= near then
      count = count + processes
    end
  end
  heard[#heard + 1] = count
  i = i + 3 + all
end
return heard
