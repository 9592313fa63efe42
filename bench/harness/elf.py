"""Just enough of ELF: does a file define a dynamic symbol, and which compilers made it?"""

import struct

SHT_DYNSYM = 11


class ElfError(Exception):
    """Not an ELF file that this can read."""


class Elf:
    """Section headers and names of a 64-bit or 32-bit file of this machine's byte order."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        if self.data[:4] != b"\x7fELF" or self.data[5] not in (1, 2):
            raise ElfError(f"{path} is not an ELF file")
        self.wide = self.data[4] == 2
        self.order = "<" if self.data[5] == 1 else ">"
        if self.wide:
            offset, = self._unpack("Q", 0x28)
            size, count, names = self._unpack("HHH", 0x3a)
            form = "IIQQQQIIQQ"
        else:
            offset, = self._unpack("I", 0x20)
            size, count, names = self._unpack("HHH", 0x2e)
            form = "IIIIIIIIII"
        self.sections = [self._unpack(form, offset + i * size) for i in range(count)]
        self.names = self._content(self.sections[names]) if count else b""

    def _unpack(self, form, offset):
        try:
            return struct.unpack_from(self.order + form, self.data, offset)
        except struct.error:
            raise ElfError("the ELF file is cut short") from None

    def _content(self, section):
        return self.data[section[4]:section[4] + section[5]]

    @staticmethod
    def _string(table, at):
        return table[at:table.index(b"\0", at)].decode(errors="replace")

    def section(self, name):
        """The content of a section by name; empty where there is none."""
        for section in self.sections:
            if self._string(self.names, section[0]) == name:
                return self._content(section)
        return b""

    def defines(self, symbol):
        """Is symbol defined in the dynamic symbol table (True), only asked for (False), or not
        there at all (None)?"""
        for section in self.sections:
            if section[1] != SHT_DYNSYM:
                continue
            strings = self._content(self.sections[section[6]])
            form, size = ("IBBHQQ", 24) if self.wide else ("IIIBBH", 16)
            for at in range(section[4], section[4] + section[5], size):
                entry = self._unpack(form, at)
                if self._string(strings, entry[0]) == symbol:
                    return (entry[3] if self.wide else entry[5]) != 0
        return None

    def compilers(self):
        """What the compilers left in .comment, such as 'GCC: (Debian 12.2.0-14) 12.2.0'."""
        return [text.decode(errors="replace")
                for text in self.section(".comment").split(b"\0") if text]
