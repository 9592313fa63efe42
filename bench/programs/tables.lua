-- What Lua programs do all day, in one script: tables, closures, strings, garbage. Lua asks its
-- allocator for every object (realloc for all of it), so little stands between it and malloc.
--
-- usage: tables.lua SCALE
-- Prints one line with a checksum of everything it made, the same for every run of the same scale.

local scale = tonumber(arg[1]) or error("usage: tables.lua SCALE")
local state, sum = 1, 0

local function below(n)
    state = (state * 1103515245 + 12345) % 2147483648
    return (state // 65536) % n
end

local function note(value)
    local text = tostring(value)
    for i = 1, #text, 7 do
        sum = (sum * 31 + text:byte(i)) % 4294967296
    end
end

local function tree(depth)
    if depth == 0 then
        return { value = below(100) }
    end
    return { left = tree(depth - 1), right = tree(depth - 1), value = below(100) }
end

local function total(node)
    return node.value + (node.left and total(node.left) + total(node.right) or 0)
end

for round = 1, scale do
    for _ = 1, 8 do
        note(total(tree(11)))
    end

    local parts = {}
    for i = 1, 12000 do
        parts[#parts + 1] = string.format("%d:%s", i, string.rep("z", below(60)))
    end
    local page = table.concat(parts, ",")
    local longest = 0
    for number, text in page:gmatch("(%d+):(z*)") do
        longest = math.max(longest, #text)
    end
    note(page:gsub("zz", "y"))
    note(longest)

    local makers, seen = {}, {}
    for i = 1, 4000 do
        local counter = below(1000)
        makers[i] = function(step)
            counter = counter + step
            return counter
        end
        seen["key" .. below(3000)] = { i, makers[i](i) }
    end
    local keys = {}
    for key in pairs(seen) do
        keys[#keys + 1] = key
    end
    table.sort(keys)
    for _, key in ipairs(keys) do
        note(key .. seen[key][2])
    end
end
print(string.format("ok tables %08x", sum))
