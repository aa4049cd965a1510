-- Sends the bodies of a file over and over, and prints what wrk counted as one line of JSON.
-- Arguments: file, content type, API key (or -), order (round or random), seed.
-- The file holds bodies behind their lengths: decimal digits and a newline each.
local requests, order, at = {}, "round", 0

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
end

function request()
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
