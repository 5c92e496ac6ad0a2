-- Wireshark dissector for the traces of `smcdctl trace`: CDC messages of SMC-D connections.
--
-- Use it with `wireshark -X lua_script:smcd.lua FILE`, or copy it to Wireshark's folder for personal Lua plugins.
--
-- Link type USER0 (147). Each packet is a header of 64 bytes, numbers in network byte order, and the CDC message as it
-- stands in the memory of its receiver, numbers in the byte order of the host:
--
--    0  version: 1
--    1  flags: 0x01 the producer cursor was published, 0x02 the consumer cursor and the flags were,
--       0x04 the producer cursor is known, 0x08 the consumer cursor and the flags are; what is not known is zero
--    2  bytes before the message: 64
--    4  process that sends the message
--    8  cookie of its socket
--   16  its address, as one of IPv6
--   32  the address of the peer
--   48  its port
--   50  the port of the peer
--   52  byte order of the message: 1 little-endian, 2 big-endian
--   53  zeros
--   56  bytes of the ring that the sender reads from
--   60  bytes of the ring that it writes to
--   64  CDC message of 32 bytes

local smcd = Proto("smcd", "SMC-D Connection Data Control")

local HEADER, MESSAGE = 64, 32

local f = {
    version = ProtoField.uint8("smcd.version", "Version"),
    flags = ProtoField.uint8("smcd.flags", "Published", base.HEX),
    has_prod = ProtoField.bool("smcd.has_prod", "Producer cursor published", 8, nil, 0x01),
    has_cons = ProtoField.bool("smcd.has_cons", "Consumer cursor and flags published", 8, nil, 0x02),
    knows_prod = ProtoField.bool("smcd.knows_prod", "Producer cursor known", 8, nil, 0x04),
    knows_cons = ProtoField.bool("smcd.knows_cons", "Consumer cursor and flags known", 8, nil, 0x08),
    pid = ProtoField.uint32("smcd.pid", "Process"),
    cookie = ProtoField.uint64("smcd.cookie", "Socket cookie", base.HEX),
    src = ProtoField.ipv6("smcd.src", "Sender"),
    dst = ProtoField.ipv6("smcd.dst", "Receiver"),
    srcport = ProtoField.uint16("smcd.srcport", "Sender's port"),
    dstport = ProtoField.uint16("smcd.dstport", "Receiver's port"),
    receive_buffer = ProtoField.uint32("smcd.receive_buffer", "Ring that the sender reads from"),
    send_buffer = ProtoField.uint32("smcd.send_buffer", "Ring that the sender writes to"),
    kind = ProtoField.uint8("smcd.cdc.type", "Type", base.HEX),
    prod_wrap = ProtoField.uint16("smcd.cdc.prod.wrap", "Producer wrap"),
    prod_count = ProtoField.uint32("smcd.cdc.prod.count", "Producer count"),
    cons_wrap = ProtoField.uint16("smcd.cdc.cons.wrap", "Consumer wrap"),
    cons_count = ProtoField.uint32("smcd.cdc.cons.count", "Consumer count"),
    prod_flags = ProtoField.uint8("smcd.cdc.prod_flags", "Producer flags", base.HEX),
    write_blocked = ProtoField.bool("smcd.cdc.write_blocked", "Writer blocked", 8, nil, 0x80),
    urgent_pending = ProtoField.bool("smcd.cdc.urgent_pending", "Urgent data pending", 8, nil, 0x40),
    urgent_present = ProtoField.bool("smcd.cdc.urgent_present", "Urgent data present", 8, nil, 0x20),
    cons_update = ProtoField.bool("smcd.cdc.cons_update", "Consumer update requested", 8, nil, 0x10),
    reading = ProtoField.bool("smcd.cdc.reading", "Reads its ring", 8, nil, 0x01),
    state_flags = ProtoField.uint8("smcd.cdc.state_flags", "State flags", base.HEX),
    done_writing = ProtoField.bool("smcd.cdc.done_writing", "Done writing", 8, nil, 0x80),
    closed = ProtoField.bool("smcd.cdc.closed", "Closed", 8, nil, 0x40),
    abort = ProtoField.bool("smcd.cdc.abort", "Aborted", 8, nil, 0x20),
}

local fields = {}
for _, field in pairs(f) do
    table.insert(fields, field)
end
smcd.fields = fields

local too_short = ProtoExpert.new("smcd.too_short", "Too short", expert.group.MALFORMED, expert.severity.ERROR)
local unknown = ProtoExpert.new("smcd.unknown", "Unknown version", expert.group.UNDECODED, expert.severity.WARN)
smcd.experts = { too_short, unknown }

local function flags_of(tree, field, range, bits)
    local sub = tree:add(field, range)
    for _, bit in ipairs(bits) do
        sub:add(bit, range)
    end
end

-- Adds a cursor, and returns it as text.
local function cursor(tree, wrap, count, range, little)
    if little then
        tree:add_le(wrap, range(0, 2))
        tree:add_le(count, range(2, 4))
        return range(0, 2):le_uint() .. ":" .. range(2, 4):le_uint()
    end
    tree:add(wrap, range(0, 2))
    tree:add(count, range(2, 4))
    return range(0, 2):uint() .. ":" .. range(2, 4):uint()
end

-- An address, that of IPv4 if it is one in IPv6 form.
local function address(range)
    if range(0, 12):bytes():tohex() == "00000000000000000000FFFF" then
        return range(12, 4):ipv4()
    end
    return range:ipv6()
end

local function state_text(state)
    local words = {}
    for _, bit in ipairs({ { 0x80, "DONE" }, { 0x40, "CLOSED" }, { 0x20, "ABORT" } }) do
        if state % (2 * bit[1]) >= bit[1] then
            table.insert(words, bit[2])
        end
    end
    return #words > 0 and " [" .. table.concat(words, ", ") .. "]" or ""
end

function smcd.dissector(buffer, pinfo, root)
    pinfo.cols.protocol = "SMC-D"
    local tree = root:add(smcd, buffer())
    if buffer:len() < HEADER then
        tree:add_proto_expert_info(too_short)
        return
    end
    tree:add(f.version, buffer(0, 1))
    local start = buffer(2, 2):uint()
    if buffer(0, 1):uint() ~= 1 or start < HEADER then
        tree:add_proto_expert_info(unknown)
        return
    end
    flags_of(tree, f.flags, buffer(1, 1), { f.has_prod, f.has_cons, f.knows_prod, f.knows_cons })
    tree:add(f.pid, buffer(4, 4))
    tree:add(f.cookie, buffer(8, 8))
    tree:add(f.src, buffer(16, 16))
    tree:add(f.dst, buffer(32, 16))
    tree:add(f.srcport, buffer(48, 2))
    tree:add(f.dstport, buffer(50, 2))
    tree:add(f.receive_buffer, buffer(56, 4))
    tree:add(f.send_buffer, buffer(60, 4))
    if buffer:len() < start + MESSAGE then
        tree:add_proto_expert_info(too_short)
        return
    end
    local little = buffer(52, 1):uint() == 1
    local cdc = tree:add(buffer(start, MESSAGE), "CDC message")
    cdc:add(f.kind, buffer(start, 1))
    local prod = cursor(cdc, f.prod_wrap, f.prod_count, buffer(start + 8, 6), little)
    local cons = cursor(cdc, f.cons_wrap, f.cons_count, buffer(start + 16, 6), little)
    flags_of(cdc, f.prod_flags, buffer(start + 22, 1),
        { f.write_blocked, f.urgent_pending, f.urgent_present, f.cons_update, f.reading })
    flags_of(cdc, f.state_flags, buffer(start + 23, 1), { f.done_writing, f.closed, f.abort })
    pinfo.src, pinfo.dst = address(buffer(16, 16)), address(buffer(32, 16))
    pinfo.cols.info = buffer(48, 2):uint() .. " → " .. buffer(50, 2):uint()
        .. " prod " .. prod .. " cons " .. cons .. state_text(buffer(start + 23, 1):uint())
end

DissectorTable.get("wtap_encap"):add(wtap.USER0, smcd)
