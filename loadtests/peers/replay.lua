-- Sends the bodies of a file over and over, and prints what wrk counted as one line of JSON.
-- Arguments: file, content type, API key (or -), order, seed; with order users also the number of users and the exponent.
-- Orders: round, one after the other; random, each as likely as the others; users, the only body with the id of a user
-- who is drawn anew for each request: the share of a user falls with the rank, to the power of the exponent.
-- The file holds bodies behind their lengths: decimal digits and a newline each.
local requests, order, at = {}, "round", 0
local before, behind, users, sums
local MARK = "user-0000000"

local function bodies(path)
  local file, found = assert(io.open(path, "rb")), {}
  while true do
    local length = file:read("*l")
    if not length then break end
    found[#found + 1] = file:read(tonumber(length))
  end
  file:close()
  return found
end

function init(args)
  local headers = { ["Content-Type"] = args[2] }
  if args[3] ~= "-" then headers["Authorization"] = "Bearer " .. args[3] end
  for i, body in ipairs(bodies(args[1])) do
    requests[i] = wrk.format("POST", wrk.path, headers, body)
  end
  order = args[4]
  math.randomseed(tonumber(args[5]))
  if order == "users" then
    local from, to = requests[1]:find(MARK, 1, true)
    before, behind = requests[1]:sub(1, from - 1), requests[1]:sub(to + 1)
    users = tonumber(args[6])
    if tonumber(args[7]) > 0 then sums = zipf(users, tonumber(args[7])) end
  end
end

function zipf(count, exponent)
  local found, sum = {}, 0
  for rank = 1, count do
    sum = sum + rank ^ -exponent
    found[rank] = sum
  end
  return found
end

local function drawn()
  if not sums then return math.random(users) - 1 end
  local point, low, high = math.random() * sums[users], 1, users
  while low < high do
    local middle = math.floor((low + high) / 2)
    if sums[middle] < point then low = middle + 1 else high = middle end
  end
  return low - 1
end

function request()
  if order == "users" then return before .. string.format("user-%07d", drawn()) .. behind end
  if order == "random" then return requests[math.random(#requests)] end
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, per_thread)
  local e = summary.errors
  io.write(string.format(
    'wrk: {"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.connect, e.read, e.write, e.status, e.timeout))
end
