"""Reads the library's statistics page out of another process: is it serving there?

Works from outside and by symbol, as any monitoring tool would: the address of quire_stat_page from
the library's ELF symbols, where it is mapped from /proc/PID/maps, its contents from /proc/PID/mem.
"""
import os
import struct

SYMBOL = b"quire_stat_page"
LAYOUT = "<8sII16sQQ"


def symbol_offset(path):
    """The symbol's virtual address within the library, or None where there is no such symbol."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:5] != b"\x7fELF\x02":
        return None
    (sections_at,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, sections_at + i * size)
               for i in range(count)]
    for header in headers:
        if header[1] != 11:                     # SHT_DYNSYM
            continue
        names_at = headers[header[6]][4]
        for at in range(header[4], header[4] + header[5], header[9]):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", data, at)
            if data[names_at + name:data.index(b"\0", names_at + name)] == SYMBOL:
                return value
    return None


def load_address(pid, path):
    """Where the file is mapped in the process, or None."""
    real = os.path.realpath(path)
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            fields = line.rstrip("\n").split(None, 5)
            if len(fields) == 6 and fields[5] == real and int(fields[2], 16) == 0:
                return int(fields[0].split("-")[0], 16)
    return None


def why_not_serving(pid, path):
    """None if the library serves the process, else the reason why it does not."""
    try:
        base = load_address(pid, path)
        if base is None:
            return "the library is not mapped"
        offset = symbol_offset(path)
        if offset is None:
            return None                         # another allocator: that it is mapped must do
        with open(f"/proc/{pid}/mem", "rb") as memory:
            memory.seek(base + offset)
            page = memory.read(struct.calcsize(LAYOUT))
    except OSError as error:
        return str(error)
    magic, layout, _, _, owner, serving = struct.unpack(LAYOUT, page)
    if magic != b"quire\0\0\0" or layout != 1:
        return f"the statistics page is not one: {page[:16]!r}"
    if owner != pid:
        return f"the statistics page is process {owner}'s"
    return None if serving == 1 else "the library has served no allocation"
