"""Just enough ELF to judge a relocatable object before it is linked, and to find its constructors.

A JIT linker is poor at explaining itself: an unresolved symbol is "failed to materialize", a foreign machine is
"not a valid object". So the object is read here first: which machine it is for, what it defines, and what it
leaves undefined. And the linker does not run constructors (`.init_array`, `.ctors`) of an object file, and has its
own idea of `atexit`; `rewritten` returns the same object with a symbol put at the start of each such section, so
that constructors can be looked up and run, and with symbols renamed. (New tables are appended; nothing moves.)

Everything is bounds-checked; a damaged file is a `LinkError`, never an exception of another type.
Refuses: anything but 64-bit little-endian relocatable ELF.
Source: the System V ABI, chapter 4 (object files).
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping
from typing import Final

import attrs

from orc_trio.native.errors import LinkError

MACHINES: Final = {62: "x86_64", 183: "aarch64", 243: "riscv64"}

_MAGIC: Final = b"\x7fELF"
_ET_REL: Final = 1
_SHT_SYMTAB: Final = 2
_SHT_INIT_ARRAY: Final = 14
_SHT_FINI_ARRAY: Final = 15
_SHN_UNDEF: Final = 0
_DEFAULT_PRIORITY: Final = 65536
_SHN_COMMON: Final = 0xFFF2
_STB_LOCAL: Final = 0
_STB_GLOBAL: Final = 1
_STV_HIDDEN_OR_INTERNAL: Final = (1, 2)

_SIGNS_OF_DAMAGE: Final = (struct.error, IndexError, OverflowError, UnicodeDecodeError)
_DAMAGED: Final = "the object file is damaged: a table points outside the file"

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")


@attrs.frozen
class PointerArray:
    """A section of function pointers to be called: constructors (`init`) or destructors.

    Constructors run in the order of `priority`, and within a section from its start, or from its end if `backward`;
    destructors in the opposite order.
    """

    symbol: str
    count: int
    init: bool
    priority: int
    backward: bool


@attrs.frozen
class ObjectFile:
    """What was read from an object file."""

    data: bytes = attrs.field(repr=False)
    machine: str
    defined: frozenset[str]
    """Names other objects and callers may use (hidden ones are not among them)."""
    strong: frozenset[str]
    """Names no second object may define: neither weak nor common."""
    undefined: frozenset[str]
    arrays: tuple[PointerArray, ...]
    _symtab: int = attrs.field(alias="symtab", repr=False)
    _sections: tuple[tuple[int, ...], ...] = attrs.field(alias="sections", repr=False)
    _array_sections: tuple[int, ...] = attrs.field(alias="array_sections", repr=False)

    def rewritten(self, rename: Mapping[str, str]) -> bytes:
        """Return the object with the symbols of `arrays` added, and undefined symbols renamed."""
        if not self.arrays and self.undefined.isdisjoint(rename):
            return self.data
        try:
            return _rewritten(self, rename)
        except _SIGNS_OF_DAMAGE as exc:
            raise LinkError(_DAMAGED) from exc


def is_elf(data: bytes) -> bool:
    """Say whether these bytes start as an ELF file does."""
    return data[:4] == _MAGIC


def host_machine() -> str:
    """Return this machine's name as `ObjectFile.machine` spells it."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def read_object(data: bytes, *, unique: str = "") -> ObjectFile:
    """Read a relocatable object.

    Args:
        data: the whole file.
        unique: made part of the names of added symbols, so that those of several objects differ.

    Raises:
        LinkError: this is not a relocatable 64-bit little-endian ELF object, or it is damaged.
    """
    try:
        return _read(data, unique)
    except _SIGNS_OF_DAMAGE as exc:
        raise LinkError(_DAMAGED) from exc


def _text(table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset)
    return table[offset : end if end >= 0 else len(table)].decode()


def _slice(data: bytes, section: tuple[int, ...]) -> bytes:
    offset, size = section[4], section[5]
    if offset + size > len(data):
        raise IndexError("section outside the file")
    return data[offset : offset + size]


def _read(data: bytes, unique: str) -> ObjectFile:
    if not is_elf(data):
        raise LinkError("this is not an ELF object file")
    ident, kind, machine, *_, section_offset, _, _, _, _, entry_size, count, names_index = _HEADER.unpack_from(data)
    if ident[4] != 2 or ident[5] != 1:
        raise LinkError("only 64-bit little-endian ELF objects can be loaded")
    if kind != _ET_REL:
        raise LinkError("this ELF file is not a relocatable object (compile with -c)")
    if entry_size != _SECTION.size or count == 0:
        raise LinkError("the object file is damaged: its section table has a wrong shape")
    sections = tuple(_SECTION.unpack_from(data, section_offset + i * entry_size) for i in range(count))
    names = _slice(data, sections[names_index])

    defined: set[str] = set()
    strong: set[str] = set()
    undefined: set[str] = set()
    symtab = -1
    for index, section in enumerate(sections):
        if section[1] != _SHT_SYMTAB:
            continue
        symtab = index
        strings = _slice(data, sections[section[6]])
        table = _slice(data, section)
        for name_at, info, other, where, _, _ in _SYMBOL.iter_unpack(table[: len(table) // 24 * 24]):
            bind = info >> 4
            if bind == _STB_LOCAL or name_at == 0:
                continue
            name = _text(strings, name_at)
            if where != _SHN_UNDEF:
                if other & 3 not in _STV_HIDDEN_OR_INTERNAL:
                    defined.add(name)
                if bind == _STB_GLOBAL and where != _SHN_COMMON:
                    strong.add(name)
            elif bind == _STB_GLOBAL:
                undefined.add(name)

    arrays: list[PointerArray] = []
    array_sections: list[int] = []
    for index, section in enumerate(sections):
        base, _, number = _text(names, section[0]).removeprefix(".").partition(".")
        old_style = base in ("ctors", "dtors")
        if (old_style or section[1] in (_SHT_INIT_ARRAY, _SHT_FINI_ARRAY)) and len(_slice(data, section)) >= 8:
            arrays.append(
                PointerArray(
                    symbol=f"__orc_trio_array_{unique}_{index}",
                    count=section[5] // 8,
                    init=base == "ctors" or section[1] == _SHT_INIT_ARRAY,
                    priority=_DEFAULT_PRIORITY if not number.isdecimal() else abs(int(number[:9]) - 65535 * old_style),
                    backward=old_style,
                )
            )
            array_sections.append(index)
    return ObjectFile(
        data=data,
        machine=MACHINES.get(machine, f"machine {machine}"),
        defined=frozenset(defined),
        strong=frozenset(strong),
        undefined=frozenset(undefined),
        arrays=tuple(arrays),
        symtab=symtab,
        sections=sections,
        array_sections=tuple(array_sections),
    )


def _rewritten(obj: ObjectFile, rename: Mapping[str, str]) -> bytes:
    """Append a longer symbol table and string table to the file, and let their section headers point there."""
    if obj._symtab < 0:
        raise LinkError("the object file has constructors but no symbol table")
    symtab = list(obj._sections[obj._symtab])
    strings_index = symtab[6]
    strtab = list(obj._sections[strings_index])
    symbols = bytearray(_slice(obj.data, tuple(symtab)))
    strings = bytearray(_slice(obj.data, tuple(strtab)))
    old_strings = bytes(strings)
    for at in range(0, len(symbols) // _SYMBOL.size * _SYMBOL.size, _SYMBOL.size):
        name_at, info, other, where, value, size = _SYMBOL.unpack_from(symbols, at)
        if where != _SHN_UNDEF or name_at == 0:
            continue
        new_name = rename.get(_text(old_strings, name_at))
        if new_name is not None:
            _SYMBOL.pack_into(symbols, at, len(strings), info, other & ~3, where, value, size)
            strings += new_name.encode() + b"\0"
    for array, section_index in zip(obj.arrays, obj._array_sections, strict=True):
        symbols += _SYMBOL.pack(len(strings), _STB_GLOBAL << 4 | 1, 0, section_index, 0, array.count * 8)
        strings += array.symbol.encode() + b"\0"
    out = bytearray(obj.data)
    out += bytes(-len(out) % 8)
    symtab[4], symtab[5] = len(out), len(symbols)
    out += symbols
    strtab[4], strtab[5] = len(out), len(strings)
    out += strings
    section_offset = _HEADER.unpack_from(obj.data)[6]
    _SECTION.pack_into(out, section_offset + obj._symtab * _SECTION.size, *symtab)
    _SECTION.pack_into(out, section_offset + strings_index * _SECTION.size, *strtab)
    return bytes(out)
