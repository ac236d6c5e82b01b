-- Publish many events in one call. Scripts are atomic, so the events keep their order.
--
-- ARGV  for each event: the payload, how many of its channels are the recipient's, how many channels there are, and the
--       channels, the recipient's first
--
-- Returns for each event how many processes received it on the recipient's channels.

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
