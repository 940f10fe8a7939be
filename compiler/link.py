"""A small static linker: relocatable ELF objects to one position-independent image.

It handles what LLVM emits for our kernels with position-independent code in the small code model:
functions and constants that refer to each other relative to the program counter. Whatever would
need a dynamic loader (absolute addresses, writable data, imported symbols) is refused, so that an
image needs nothing but to be mapped.

Relocation numbers and formulas: System V ABI, AMD64 supplement, and ELF for the Arm 64-bit architecture
(S is the symbol's address, A the addend, P the place).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..errors import CompileError
from ..runtime.image import Image

__all__ = ["link"]

SHT_PROGBITS, SHT_SYMTAB, SHT_RELA, SHT_NOBITS, SHT_REL = 1, 2, 4, 8, 9
SHF_WRITE, SHF_ALLOC, SHF_TLS = 1, 2, 0x400
STB_LOCAL, STB_WEAK = 0, 2
STT_FUNC, STT_SECTION, STT_TLS = 2, 3, 6
SHN_UNDEF, SHN_ABS, SHN_COMMON = 0, 0xFFF1, 0xFFF2
EM_X86_64, EM_AARCH64 = 62, 183
ALIGNMENT, PAGE = 64, 4096
_DROPPED = (".eh_frame", ".note", ".comment", ".gcc_except_table", ".llvm_addrsig")


def link(*objects: bytes, triple: str = "", features: Sequence[str] = ()) -> Image:
    """Link ELF objects for x86-64 or AArch64 to an image.

    Parameters
    ----------
    objects : relocatable, position-independent, all for one machine; they may call each other.
    triple, features : the target, for the image's record.

    Returns
    -------
    The image; its entries are the global functions that are not hidden, its functions all that there are.

    Raises
    ------
    CompileError
        If an object is malformed, or needs a symbol that none of them defines, writable data, or a
        relocation that a position-independent image cannot have.
    """
    try:
        parsed = [_Object(data) for data in objects]
        code, entries = _link(parsed)
    except (struct.error, IndexError, OverflowError, ValueError) as e:
        raise CompileError(f"the object file is malformed: {e}") from None
    return Image(bytes(code), dict(sorted(entries.items())), triple, tuple(features), _functions(parsed))


def _link(parsed: Sequence[_Object]) -> tuple[bytearray, dict[str, int]]:
    if len({o.machine for o in parsed}) != 1:
        raise CompileError("link needs objects for one machine, at least one")
    code = _lay_out(parsed)
    symbols = _resolve(parsed)
    for o in parsed:
        for section, relocation in o.relocations():
            _relocate(o, section, relocation, code, symbols)
    entries = {
        s.name: symbols[s.name]
        for o in parsed
        for s in o.symbols
        if s.kind == STT_FUNC and s.defined and s.binding != STB_LOCAL and s.visible
    }
    return code, entries


def _functions(parsed: Sequence[_Object]) -> dict[str, tuple[int, int]]:
    """Where each function lies, in the order of their places."""
    found = [
        (o.address(s), s.size, s.name)
        for o in parsed
        for s in o.symbols
        if s.kind == STT_FUNC and s.defined and o.sections[s.section].kept
    ]
    return {name: (offset, size) for offset, size, name in sorted(found)}


# --- reading an object -----------------------------------------------------------------------------


@dataclass
class _Section:
    name: str
    kind: int
    flags: int
    data: bytes
    link: int
    info: int
    align: int
    size: int
    address: int = -1  # where it lies in the image

    @property
    def kept(self) -> bool:
        return bool(self.flags & SHF_ALLOC) and self.size > 0 and not self.name.startswith(_DROPPED)


@dataclass(frozen=True)
class _Symbol:
    name: str
    section: int
    value: int
    kind: int
    binding: int
    visible: bool
    size: int = 0

    @property
    def defined(self) -> bool:
        return self.section != SHN_UNDEF


@dataclass(frozen=True)
class _Relocation:
    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass
class _Object:
    data: bytes
    machine: int = 0
    sections: list[_Section] = field(default_factory=list)
    symbols: list[_Symbol] = field(default_factory=list)

    def __post_init__(self) -> None:
        ident = self.data[:7]
        if ident[:4] != b"\x7fELF" or ident[4:6] != b"\x02\x01":
            raise ValueError("not a little-endian 64-bit ELF file")
        kind, self.machine = struct.unpack_from("<HH", self.data, 16)
        if kind != 1 or self.machine not in (EM_X86_64, EM_AARCH64):
            raise ValueError("not a relocatable object for x86-64 or AArch64")
        offset = struct.unpack_from("<Q", self.data, 40)[0]
        entry_size, count, names = struct.unpack_from("<HHH", self.data, 58)
        if offset and count == 0:  # more sections than 16 bits hold
            raise ValueError("too many sections")
        heads = [struct.unpack_from("<IIQQQQIIQQ", self.data, offset + i * entry_size) for i in range(count)]
        table = self._bytes(heads[names])
        for h in heads:
            name = _string(table, h[0])
            self.sections.append(_Section(name, h[1], h[2], self._bytes(h), h[6], h[7], max(h[8], 1), h[5]))
        self.symbols = list(self._symbols())
        self._check()

    def _bytes(self, head: tuple[int, ...]) -> bytes:
        kind, offset, size = head[1], head[4], head[5]
        if kind in (0, SHT_NOBITS):
            return b""
        if offset + size > len(self.data):
            raise ValueError("a section lies beyond the end of the file")
        return self.data[offset : offset + size]

    def _symbols(self) -> Iterator[_Symbol]:
        for s in self.sections:
            if s.kind == SHT_SYMTAB:
                names = self.sections[s.link].data
                for name, info, other, section, value, size in struct.iter_unpack("<IBBHQQ", s.data):
                    text = _string(names, name)
                    yield _Symbol(text, section, value, info & 15, info >> 4, other & 3 == 0, size)

    def _check(self) -> None:
        for s in self.sections:
            if s.kept and (s.kind == SHT_NOBITS or s.flags & (SHF_WRITE | SHF_TLS)):
                raise CompileError(f"section {s.name} holds writable data; an image has none")
            if s.kept and (s.align > PAGE or s.align & (s.align - 1)):
                raise CompileError(f"section {s.name} is aligned to {s.align} bytes; an image only to {PAGE}")
            if s.kept and s.kind != SHT_PROGBITS:
                raise CompileError(f"section {s.name} of type {s.kind} cannot be part of an image")

    def relocations(self) -> Iterator[tuple[_Section, _Relocation]]:
        """All relocations of the sections that are kept."""
        for s in self.sections:
            if s.kind not in (SHT_RELA, SHT_REL) or not self.sections[s.info].kept:
                continue
            if s.kind == SHT_REL:
                raise CompileError(f"{s.name}: relocations without addends")
            for offset, info, addend in struct.iter_unpack("<QQq", s.data):
                yield self.sections[s.info], _Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend)

    def address(self, symbol: _Symbol) -> int:
        """A defined symbol's address in the image."""
        if symbol.section in (SHN_ABS, SHN_COMMON):
            raise CompileError(f"symbol {symbol.name} is absolute or common; an image has none")
        section = self.sections[symbol.section]
        if section.address < 0:
            raise CompileError(f"symbol {symbol.name} lies in section {section.name}, which is not kept")
        if symbol.value > section.size:
            raise CompileError(f"symbol {symbol.name} lies beyond section {section.name}")
        return section.address + symbol.value


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()


# --- layout and symbols ----------------------------------------------------------------------------


def _lay_out(objects: Sequence[_Object]) -> bytearray:
    """Give each kept section its place, code first, and copy it there."""
    kept = [s for o in objects for s in o.sections if s.kept]
    kept.sort(key=lambda s: not s.name.startswith(".text"))
    code = bytearray()
    for s in kept:
        align = max(s.align, ALIGNMENT)
        code += b"\0" * (-len(code) % align)
        s.address = len(code)
        code += s.data
    return code + b"\0" * (-len(code) % ALIGNMENT)


def _resolve(objects: Sequence[_Object]) -> dict[str, int]:
    """Addresses of the global symbols.

    Raises
    ------
    CompileError
        If one is undefined, or defined twice.
    """
    found: dict[str, int] = {}
    weak: dict[str, int] = {}
    for o in objects:
        for s in o.symbols:
            if s.binding == STB_LOCAL or not s.defined:
                continue
            if s.name in found and s.binding != STB_WEAK:
                raise CompileError(f"symbol {s.name} is defined twice")
            table = weak if s.binding == STB_WEAK else found
            table.setdefault(s.name, o.address(s))
    found = {**weak, **found}
    wanted = {o.symbols[r.symbol].name for o in objects for _, r in o.relocations() if _is_undefined(o, r)}
    undefined = sorted(wanted - set(found))
    if undefined:
        raise CompileError(f"undefined symbols: {', '.join(undefined)}; an image cannot import any")
    return found


def _is_undefined(o: _Object, relocation: _Relocation) -> bool:
    return relocation.symbol >= len(o.symbols) or not o.symbols[relocation.symbol].defined


# --- relocations -----------------------------------------------------------------------------------


@dataclass
class _Site:
    """The place of one relocation: S + A is `target`, P is `place`."""

    code: bytearray
    place: int
    target: int
    where: str

    def word(self) -> int:
        return int(struct.unpack_from("<I", self.code, self.place)[0])

    def put(self, word: int) -> None:
        struct.pack_into("<I", self.code, self.place, word)

    def fit(self, value: int, bits: int) -> int:
        """`value` as an unsigned field of that many bits, if it is in the signed range."""
        if not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise CompileError(f"{self.where}: the distance {value} does not fit {bits} bits")
        return value & (1 << bits) - 1


def _relocate(
    o: _Object, section: _Section, relocation: _Relocation, code: bytearray, symbols: dict[str, int]
) -> None:
    symbol = o.symbols[relocation.symbol]
    local = symbol.defined and symbol.binding == STB_LOCAL
    address = o.address(symbol) if local else symbols[symbol.name]
    where = f"{section.name}+{relocation.offset:#x} to {symbol.name or 'a section'}"
    apply = _APPLY[o.machine].get(relocation.kind)
    if apply is None or symbol.kind == STT_TLS:
        raise CompileError(f"{where}: relocation type {relocation.kind} needs a dynamic loader")
    if relocation.offset + (8 if apply is _relative64 else 4) > section.size:
        raise CompileError(f"{where}: the relocation lies beyond its section")
    apply(_Site(code, section.address + relocation.offset, address + relocation.addend, where))


def _relative32(site: _Site) -> None:
    site.put(site.fit(site.target - site.place, 32))


def _relative64(site: _Site) -> None:
    struct.pack_into("<q", site.code, site.place, site.target - site.place)


def _through_table(site: _Site) -> None:
    """x86-64 GOTPCREL: what would load an address from a table computes it instead.

    ``mov table(%rip), %reg`` becomes ``lea``; ``call *table(%rip)`` and ``jmp *`` become direct.
    """
    code, place = site.code, site.place
    op, mode = code[place - 2 : place] if place >= 2 else b"\0\0"
    if op == 0x8B and mode & 0xC7 == 0x05:
        code[place - 2] = 0x8D
    elif (op, mode) == (0xFF, 0x15):
        code[place - 2 : place] = b"\x67\xe8"  # an address-size prefix fills the byte
    elif (op, mode) == (0xFF, 0x25):
        code[place - 2], code[place + 3] = 0xE9, 0x90  # one byte shorter: a no-op fills the end
        site.place = place - 1
    else:
        raise CompileError(f"{site.where}: an instruction with a table of addresses that cannot be avoided")
    _relative32(site)


def _page21(site: _Site) -> None:
    """ADRP, and ADRP of a table's entry: Page(S+A) - Page(P)."""
    pages = site.fit((site.target >> 12) - (site.place >> 12), 21)
    site.put(site.word() & ~(3 << 29 | 0x7FFFF << 5) | (pages & 3) << 29 | pages >> 2 << 5)


def _near21(site: _Site) -> None:
    """ADR: S + A - P."""
    distance = site.fit(site.target - site.place, 21)
    site.put(site.word() & ~(3 << 29 | 0x7FFFF << 5) | (distance & 3) << 29 | distance >> 2 << 5)


def _branch(bits: int, shift: int) -> Callable[[_Site], None]:
    def apply(site: _Site) -> None:
        distance = site.target - site.place
        if distance % 4:
            raise CompileError(f"{site.where}: a branch to an address that is not a multiple of 4")
        field = site.fit(distance >> 2, bits)
        site.put(site.word() & ~((1 << bits) - 1 << shift) | field << shift)

    return apply


def _low12(scale: int) -> Callable[[_Site], None]:
    """ADD, LDR, STR: the low 12 bits of S + A, in units of the access."""

    def apply(site: _Site) -> None:
        low = site.target & 0xFFF
        if low & (1 << scale) - 1:
            raise CompileError(f"{site.where}: a load of {1 << scale} bytes that is not aligned")
        site.put(site.word() & ~(0xFFF << 10) | low >> scale << 10)

    return apply


def _low12_through_table(site: _Site) -> None:
    """LDR of a table's entry becomes ADD of the address itself."""
    word = site.word()
    if word >> 22 != 0xF9400000 >> 22:
        raise CompileError(f"{site.where}: an instruction with a table of addresses that cannot be avoided")
    site.put(0x91000000 | word & 0x3FF)
    _low12(0)(site)


_APPLY: dict[int, dict[int, Callable[[_Site], None]]] = {
    EM_X86_64: {
        2: _relative32,  # PC32
        4: _relative32,  # PLT32
        9: _through_table,  # GOTPCREL
        24: _relative64,  # PC64
        41: _through_table,  # GOTPCRELX
        42: _through_table,  # REX_GOTPCRELX
    },
    EM_AARCH64: {
        260: _relative64,  # PREL64
        261: _relative32,  # PREL32
        273: _branch(19, 5),  # LD_PREL_LO19
        274: _near21,  # ADR_PREL_LO21
        275: _page21,  # ADR_PREL_PG_HI21
        276: _page21,  # ADR_PREL_PG_HI21_NC
        277: _low12(0),  # ADD_ABS_LO12_NC
        278: _low12(0),  # LDST8_ABS_LO12_NC
        279: _branch(14, 5),  # TSTBR14
        280: _branch(19, 5),  # CONDBR19
        282: _branch(26, 0),  # JUMP26
        283: _branch(26, 0),  # CALL26
        284: _low12(1),  # LDST16_ABS_LO12_NC
        285: _low12(2),  # LDST32_ABS_LO12_NC
        286: _low12(3),  # LDST64_ABS_LO12_NC
        299: _low12(4),  # LDST128_ABS_LO12_NC
        311: _page21,  # ADR_GOT_PAGE
        312: _low12_through_table,  # LD64_GOT_LO12_NC
    },
}
