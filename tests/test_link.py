"""The linker: what it lays out, relocates, exports, and refuses."""

from __future__ import annotations

import ctypes
import random
import struct

import pytest
from native_code import ARCH, TRIPLE, compile_ir, image_of

from graphwright.compiler.link import link
from graphwright.compiler.llvm.pool import pool_ir
from graphwright.errors import CompileError
from graphwright.runtime.image import Image, LoadedImage

TABLE = """
@table = internal constant [4 x i64] [i64 10, i64 20, i64 30, i64 40]
@vector = internal constant <4 x float> <float 1.0, float 2.0, float 3.0, float 4.0>, align 16
define internal i64 @pick(i64 %i) noinline {
  %p = getelementptr [4 x i64], ptr @table, i64 0, i64 %i
  %v = load i64, ptr %p
  ret i64 %v
}
define i64 @twice(i64 %i) {
  %a = call i64 @pick(i64 %i)
  %b = mul i64 %a, 2
  ret i64 %b
}
define float @lane(i64 %i) {
  %v = load <4 x float>, ptr @vector, align 16
  %x = extractelement <4 x float> %v, i64 %i
  ret float %x
}
define hidden i64 @secret() { ret i64 1 }
"""

SWITCH = """
define internal i64 @f0() noinline { ret i64 100 }
define i64 @shared() noinline { ret i64 7 }
define i64 @choose(i64 %i) {
  switch i64 %i, label %other [
    i64 0, label %a i64 1, label %b i64 2, label %c i64 3, label %d i64 4, label %e
  ]
a:
  %va = call i64 @f0()
  ret i64 %va
b:
  %vb = call i64 @shared()
  ret i64 %vb
c:
  ret i64 33
d:
  ret i64 -5
e:
  ret i64 1234567
other:
  ret i64 0
}
define ptr @address() { ret ptr @shared }
define i64 @through(ptr %f) {
  %v = call i64 %f()
  ret i64 %v
}
"""

POINTERS = """
@p = internal constant [2 x ptr] [ptr @f, ptr @h]
define ptr @h(i64 %i) {
  %q = getelementptr ptr, ptr @p, i64 %i
  %v = load ptr, ptr %q
  ret ptr %v
}
define i64 @f() { ret i64 0 }
"""


def function(image: Image, name: str, result: type, *args: type) -> object:
    loaded = LoadedImage(image)
    f = ctypes.CFUNCTYPE(result, *args)(loaded.address(name))
    f.keep = loaded
    return f


@pytest.mark.parametrize("opt", [0, 2])
def test_constants_and_calls(opt: int) -> None:
    image = link(compile_ir(TABLE, opt=opt))
    assert set(image.entries) == {"twice", "lane"}  # neither internal nor hidden ones
    assert len(image.code) % 64 == 0
    twice = function(image, "twice", ctypes.c_int64, ctypes.c_int64)
    lane = function(image, "lane", ctypes.c_float, ctypes.c_int64)
    assert [twice(i) for i in range(4)] == [20, 40, 60, 80]
    assert [lane(i) for i in range(4)] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("opt", [0, 2])
def test_jump_tables_and_addresses_of_functions(opt: int) -> None:
    image = link(compile_ir(SWITCH, opt=opt))
    choose = function(image, "choose", ctypes.c_int64, ctypes.c_int64)
    assert [choose(i) for i in range(6)] == [100, 7, 33, -5, 1234567, 0]
    loaded = LoadedImage(image)
    address = ctypes.CFUNCTYPE(ctypes.c_void_p)(loaded.address("address"))()
    assert address == loaded.address("shared")  # through a table of addresses, relaxed


def test_several_objects_call_each_other() -> None:
    a = compile_ir("declare i64 @g(i64)\ndefine i64 @f(i64 %x) { %y = call i64 @g(i64 %x)\n ret i64 %y }")
    b = compile_ir("define i64 @g(i64 %x) { %y = add i64 %x, 1\n ret i64 %y }")
    image = link(a, b)
    assert set(image.entries) == {"f", "g"}
    assert function(image, "f", ctypes.c_int64, ctypes.c_int64)(41) == 42
    with pytest.raises(CompileError, match="undefined symbols: g;"):
        link(a)
    with pytest.raises(CompileError, match="g is defined twice"):
        link(b, b)


def test_undefined_symbols_are_named() -> None:
    text = "declare double @cos(double)\ndeclare double @zap(double)\n" + "".join(
        f"define double @f{i}(double %x) {{ %y = call double @{g}(double %x)\n ret double %y }}\n"
        for i, g in enumerate(("zap", "cos"))
    )
    with pytest.raises(CompileError, match="undefined symbols: cos, zap"):
        link(compile_ir(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@g = global i64 5\ndefine i64 @f() { %v = load i64, ptr @g\n ret i64 %v }", "writable data"),
        ("@g = global i64 0\ndefine i64 @f() { %v = load i64, ptr @g\n ret i64 %v }", "writable data"),
        (POINTERS, "writable data"),  # absolute addresses go to .data.rel.ro
        (
            "@t = thread_local global i64 1\ndefine i64 @f() { %v = load i64, ptr @t\n ret i64 %v }",
            "writable",
        ),
    ],
)
def test_what_needs_a_loader_is_refused(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        link(compile_ir(text))


def test_records_the_target_and_round_trips() -> None:
    image = image_of(TABLE, features=("sse2",) if ARCH == "x86_64" else ())
    assert image.triple == TRIPLE
    again = Image.from_bytes(image.to_bytes())
    assert again == image
    for damaged in (b"", b"GWIMAGE1", b"x" * 40):
        with pytest.raises(ValueError, match=r".*"):
            Image.from_bytes(damaged)


def test_linking_is_deterministic() -> None:
    assert link(compile_ir(SWITCH)) == link(bytes(bytearray(compile_ir(SWITCH))))


def test_damaged_objects_raise_nothing_else() -> None:
    good = compile_ir(SWITCH)
    rng = random.Random(1)
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            link(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]))
        except CompileError:
            continue
    with pytest.raises(CompileError, match="malformed"):
        link(b"not an object")
    with pytest.raises(CompileError, match="at least one"):
        link()


def test_code_for_another_machine_is_not_mapped() -> None:
    other = "aarch64" if ARCH == "x86_64" else "x86_64"
    image = link(compile_ir(TABLE, f"{other}-unknown-linux-gnu"), triple=f"{other}-unknown-linux-gnu")
    with pytest.raises(CompileError, match="cannot run"):
        LoadedImage(image)
    with pytest.raises(CompileError, match=r"lacks: no\.such-feature"):
        LoadedImage(image_of(TABLE, features=("no.such-feature",)))


# --- AArch64, decoded by hand: no such machine is needed ------------------------------------------


def words(image: Image) -> list[int]:
    return [w for (w,) in struct.iter_unpack("<I", image.code[: len(image.code) // 4 * 4])]


def sign(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def adrp_targets(image: Image) -> list[int]:
    """Addresses that pairs of ADRP and a following ADD or LDR of the same register form."""
    found = []
    code = words(image)
    for i, w in enumerate(code):
        if w & 0x9F000000 != 0x90000000:
            continue
        pages = sign((w >> 5 & 0x7FFFF) << 2 | w >> 29 & 3, 21)
        register = w & 31
        for later in code[i + 1 : i + 8]:
            is_add = later & 0xFFC00000 == 0x91000000
            is_load = later & 0x3B000000 == 0x39000000
            if (is_add or is_load) and later >> 5 & 31 == register:
                scale = 0 if is_add else (4 if later & 0x04800000 == 0x04800000 else later >> 30)
                found.append((i * 4 >> 12) + pages << 12 | (later >> 10 & 0xFFF) << scale)
                break
    return found


def test_aarch64_pages_and_offsets() -> None:
    image = link(compile_ir(TABLE, "aarch64-unknown-linux-gnu"))
    table = image.code.index(struct.pack("<4q", 10, 20, 30, 40))
    vector = image.code.index(struct.pack("<4f", 1, 2, 3, 4))
    assert set(adrp_targets(image)) == {table, vector}


def test_aarch64_calls_and_table_of_addresses() -> None:
    image = link(compile_ir(SWITCH, "aarch64-unknown-linux-gnu", 0))
    shared = image.entries["shared"]
    calls = [
        4 * i + 4 * sign(w & 0x3FFFFFF, 26)
        for i, w in enumerate(words(image))
        if w & 0xFC000000 == 0x94000000
    ]
    assert shared in calls
    assert shared in adrp_targets(image)  # LDR of a table's entry became ADD
    begin, *_ = sorted(o for o in image.entries.values() if o > image.entries["address"])
    body = words(image)[image.entries["address"] // 4 : begin // 4]
    assert not any(w & 0xFFC00000 == 0xF9400000 for w in body)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_the_pool_needs_no_library(arch: str) -> None:
    caller = "define void @run(ptr %c, ptr %f) {\n call void @gw_parallel(ptr %c, ptr %f, ptr null, i64 9)\n ret void }"
    for opt in (0, 2):
        code = compile_ir(pool_ir(arch) + caller, f"{arch}-unknown-linux-gnu", opt)
        if arch == "riscv64":
            assert b"gw_worker" in code
        else:
            assert set(link(code).entries) == {"gw_worker", "run"}
