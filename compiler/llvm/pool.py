"""The fork-join pool of threads, as LLVM IR text that each program carries along.

It imports nothing and has no globals: all state lies in one block, the *context*, that whoever
starts the threads owns (`runtime.threads` in Python). Its layout, version 2, all fields
little-endian, each group on a cache line of its own:

====== ===== ===========================================================================
offset type  meaning
====== ===== ===========================================================================
0      i64   version of this layout: 2
8      i64   threads, the caller included; with fewer than 2 everything runs serially
16     ptr   libc's ``syscall`` function, or null: waiting threads then spin forever
24     i64   number of the system call futex
32     i64   number of the system call sched_yield
40     i64   how many pauses a thread spins before it sleeps
64     i32   owner: 1 while some thread has a parallel loop in flight
128    i32   epoch: counts the loops; sleeping workers wait for it to change
132    i32   stop: 1 when the workers shall return
136    i32   sleepers: how many workers sleep, or are about to
192    i64   gate: workers inside the present loop, plus 2**32 while it admits more
256    ptr   function of the present loop, ``void (ptr arg, i64 begin, i64 end)``
264    ptr   its argument
272    i64   its number of iterations
280    i64   iterations per chunk: a function of the number of iterations alone
288    i64   number of chunks
320    i64   chunks claimed: by the caller from the first on, plus 2**32 for each claimed by workers
             from the last on
====== ===== ===========================================================================

A context is 384 bytes, aligned to 64, zero but for the first line.

A caller that becomes the owner writes the loop, opens the gate, moves the epoch, wakes sleepers,
and claims chunks itself. It begins at the first chunk, workers at the last: of loops of equal length that follow
each other, as of the steps of a recurrent network, each of two threads gets the same part again, whose data its
cache still has. The caller waits only for workers that have come in: it closes the gate and
waits until they have left, so a worker that the system has not scheduled costs nothing. Fields
of the loop change only while the gate is closed and nobody is inside.

Memory order: opening the gate releases the loop's fields to workers, which acquire them as they
come in; leaving releases their results to the caller, which acquires them when it sees the gate
empty. `epoch` and `sleepers` are sequentially consistent: either the caller sees the sleeper, or
the sleeper's futex sees the new epoch.
"""

from __future__ import annotations

import platform

__all__ = ["CONTEXT_BYTES", "CONTEXT_VERSION", "PARALLEL", "POOL_IR", "WORKER", "pool_ir"]

CONTEXT_VERSION = 2
CONTEXT_BYTES = 384
WORKER = "gw_worker"

_X86_PAUSE = """\
declare void @llvm.x86.sse2.pause()

define internal void @gw_pause() alwaysinline nounwind {
  call void @llvm.x86.sse2.pause()
  ret void
}
"""

# `yield` returns at once on most AArch64 cores; `isb` waits about as long as x86's `pause`.
_ARM_PAUSE = """\
declare void @llvm.aarch64.isb(i32)

define internal void @gw_pause() alwaysinline nounwind {
  call void @llvm.aarch64.isb(i32 15)
  ret void
}
"""

_NO_PAUSE = """\
define internal void @gw_pause() alwaysinline nounwind {
  call void asm sideeffect "", "~{memory}"()
  ret void
}
"""

_POOL = """\
; Claim chunks of the present loop until none is left: from the first on with unit 1, from the last on with 2**32.
define internal void @gw_run_chunks(ptr %context, i64 %unit) nounwind {
entry:
  %fn.p = getelementptr i8, ptr %context, i64 256
  %arg.p = getelementptr i8, ptr %context, i64 264
  %n.p = getelementptr i8, ptr %context, i64 272
  %chunk.p = getelementptr i8, ptr %context, i64 280
  %count.p = getelementptr i8, ptr %context, i64 288
  %claims.p = getelementptr i8, ptr %context, i64 320
  %fn = load ptr, ptr %fn.p, align 8
  %arg = load ptr, ptr %arg.p, align 8
  %n = load i64, ptr %n.p, align 8
  %chunk = load i64, ptr %chunk.p, align 8
  %count = load i64, ptr %count.p, align 8
  %last.chunk = add i64 %count, -1
  %forward = icmp eq i64 %unit, 1
  br label %claim
claim:
  %claims = atomicrmw add ptr %claims.p, i64 %unit monotonic, align 8
  %front = and i64 %claims, 4294967295
  %back = lshr i64 %claims, 32
  %claimed = add i64 %front, %back
  %some = icmp slt i64 %claimed, %count
  br i1 %some, label %work, label %done
work:
  %backward = sub i64 %last.chunk, %back
  %which = select i1 %forward, i64 %front, i64 %backward
  %begin = mul i64 %which, %chunk
  %end.full = add i64 %begin, %chunk
  %last = icmp sgt i64 %end.full, %n
  %end = select i1 %last, i64 %n, i64 %end.full
  call void %fn(ptr %arg, i64 %begin, i64 %end)
  br label %claim
done:
  ret void
}

; Run fn(arg, begin, end) over all of [0, n), on several threads if that is possible now.
define internal void @gw_parallel(ptr %context, ptr %fn, ptr %arg, i64 %n) nounwind {
entry:
  %absent = icmp eq ptr %context, null
  %few = icmp sle i64 %n, 1
  %alone = or i1 %absent, %few
  br i1 %alone, label %serial, label %check
check:
  %version = load i64, ptr %context, align 8
  %known = icmp eq i64 %version, 2
  %threads.p = getelementptr i8, ptr %context, i64 8
  %threads = load atomic i64, ptr %threads.p monotonic, align 8
  %several = icmp sgt i64 %threads, 1
  %able = and i1 %known, %several
  br i1 %able, label %ask, label %serial
ask:
  %owner.p = getelementptr i8, ptr %context, i64 64
  %asked = cmpxchg ptr %owner.p, i32 0, i32 1 acquire monotonic, align 4
  %owned = extractvalue { i32, i1 } %asked, 1
  br i1 %owned, label %fork, label %serial
serial:
  call void %fn(ptr %arg, i64 0, i64 %n)
  ret void
fork:
  %epoch.p = getelementptr i8, ptr %context, i64 128
  %sleepers.p = getelementptr i8, ptr %context, i64 136
  %gate.p = getelementptr i8, ptr %context, i64 192
  %fn.p = getelementptr i8, ptr %context, i64 256
  %arg.p = getelementptr i8, ptr %context, i64 264
  %n.p = getelementptr i8, ptr %context, i64 272
  %chunk.p = getelementptr i8, ptr %context, i64 280
  %count.p = getelementptr i8, ptr %context, i64 288
  %claims.p = getelementptr i8, ptr %context, i64 320
  %n.less = add i64 %n, -1
  %n.part = lshr i64 %n.less, 7
  %chunk = add i64 %n.part, 1
  %last.chunk = udiv i64 %n.less, %chunk
  %count = add i64 %last.chunk, 1
  store ptr %fn, ptr %fn.p, align 8
  store ptr %arg, ptr %arg.p, align 8
  store i64 %n, ptr %n.p, align 8
  store i64 %chunk, ptr %chunk.p, align 8
  store i64 %count, ptr %count.p, align 8
  store atomic i64 0, ptr %claims.p monotonic, align 8
  %opened = atomicrmw or ptr %gate.p, i64 4294967296 release, align 8
  %moved = atomicrmw add ptr %epoch.p, i32 1 seq_cst, align 4
  %sleepers = load atomic i32, ptr %sleepers.p seq_cst, align 4
  %asleep = icmp sgt i32 %sleepers, 0
  br i1 %asleep, label %wake, label %run
wake:
  call void @gw_wake(ptr %context)
  br label %run
run:
  call void @gw_run_chunks(ptr %context, i64 1)
  %closed = atomicrmw and ptr %gate.p, i64 4294967295 acq_rel, align 8
  br label %drain
drain:
  %round = phi i64 [ 1, %run ], [ %round.next, %pause ], [ %round.next, %yield ]
  %inside = load atomic i64, ptr %gate.p acquire, align 8
  %empty = icmp eq i64 %inside, 0
  %round.next = add i64 %round, 1
  br i1 %empty, label %join, label %wait
wait:
  %low = and i64 %round, 255
  %long = icmp eq i64 %low, 0
  br i1 %long, label %yield, label %pause
pause:
  call void @gw_pause()
  br label %drain
yield:
  call void @gw_yield(ptr %context)
  br label %drain
join:
  store atomic i32 0, ptr %owner.p release, align 4
  ret void
}

; Wake all sleeping workers.
define internal void @gw_wake(ptr %context) nounwind noinline {
  %syscall.p = getelementptr i8, ptr %context, i64 16
  %syscall = load ptr, ptr %syscall.p, align 8
  %absent = icmp eq ptr %syscall, null
  br i1 %absent, label %done, label %call
call:
  %number.p = getelementptr i8, ptr %context, i64 24
  %number = load i64, ptr %number.p, align 8
  %epoch.p = getelementptr i8, ptr %context, i64 128
  %woken = call i64 (i64, ...) %syscall(i64 %number, ptr %epoch.p, i64 129, i64 2147483647)
  br label %done
done:
  ret void
}

; Sleep unless the epoch is no longer the one that was seen; may return early.
define internal void @gw_sleep(ptr %context, ptr %syscall, i32 %seen) nounwind noinline {
  %number.p = getelementptr i8, ptr %context, i64 24
  %number = load i64, ptr %number.p, align 8
  %epoch.p = getelementptr i8, ptr %context, i64 128
  %sleepers.p = getelementptr i8, ptr %context, i64 136
  %wanted = zext i32 %seen to i64
  %more = atomicrmw add ptr %sleepers.p, i32 1 seq_cst, align 4
  %slept = call i64 (i64, ...) %syscall(i64 %number, ptr %epoch.p, i64 128, i64 %wanted, ptr null)
  %less = atomicrmw sub ptr %sleepers.p, i32 1 seq_cst, align 4
  ret void
}

; Let another thread have this processor.
define internal void @gw_yield(ptr %context) nounwind noinline {
  %syscall.p = getelementptr i8, ptr %context, i64 16
  %syscall = load ptr, ptr %syscall.p, align 8
  %absent = icmp eq ptr %syscall, null
  br i1 %absent, label %done, label %call
call:
  %number.p = getelementptr i8, ptr %context, i64 32
  %number = load i64, ptr %number.p, align 8
  %yielded = call i64 (i64, ...) %syscall(i64 %number)
  br label %done
done:
  ret void
}

; The life of worker number id. Returns 0 once stopped, 1 if the context is of another version.
; A negative id stops all workers instead, and returns at once.
define i32 @gw_worker(ptr %context, i64 %id) nounwind {
entry:
  %stop.p = getelementptr i8, ptr %context, i64 132
  %epoch.p = getelementptr i8, ptr %context, i64 128
  %gate.p = getelementptr i8, ptr %context, i64 192
  %syscall.p = getelementptr i8, ptr %context, i64 16
  %spins.p = getelementptr i8, ptr %context, i64 40
  %version = load i64, ptr %context, align 8
  %known = icmp eq i64 %version, 2
  br i1 %known, label %start, label %unknown
unknown:
  ret i32 1
start:
  %syscall = load ptr, ptr %syscall.p, align 8
  %spins = load i64, ptr %spins.p, align 8
  %able = icmp ne ptr %syscall, null
  %stopping = icmp slt i64 %id, 0
  br i1 %stopping, label %stop, label %loop
stop:
  store atomic i32 1, ptr %stop.p release, align 4
  %moved = atomicrmw add ptr %epoch.p, i32 1 seq_cst, align 4
  call void @gw_wake(ptr %context)
  br label %leave
loop:
  %seen = load atomic i32, ptr %epoch.p acquire, align 4
  %stopped = load atomic i32, ptr %stop.p acquire, align 4
  %over = icmp ne i32 %stopped, 0
  br i1 %over, label %leave, label %enter
enter:
  %gate = atomicrmw add ptr %gate.p, i64 1 acquire, align 8
  %open = icmp uge i64 %gate, 4294967296
  br i1 %open, label %work, label %exit
work:
  call void @gw_run_chunks(ptr %context, i64 4294967296)
  br label %exit
exit:
  %outside = atomicrmw sub ptr %gate.p, i64 1 release, align 8
  br label %watch
watch:
  %spun = phi i64 [ 0, %exit ], [ 0, %sleep ], [ %spun.next, %pause ]
  %epoch = load atomic i32, ptr %epoch.p acquire, align 4
  %same = icmp eq i32 %epoch, %seen
  br i1 %same, label %idle, label %loop
idle:
  %spun.next = add i64 %spun, 1
  %tired = icmp sge i64 %spun, %spins
  %sleepy = and i1 %tired, %able
  br i1 %sleepy, label %sleep, label %pause
pause:
  call void @gw_pause()
  br label %watch
sleep:
  call void @gw_sleep(ptr %context, ptr %syscall, i32 %seen)
  br label %watch
leave:
  ret i32 0
}
"""


def pool_ir(machine: str) -> str:
    """The pool for an architecture, the first part of an LLVM triple; LLVM 15 and newer read it.

    Defines ``internal void @gw_parallel(ptr context, ptr fn, ptr arg, i64 n)`` and the exported
    ``i32 @gw_worker(ptr context, i64 id)``.
    """
    name = machine.lower()
    pause = _X86_PAUSE if name in ("x86_64", "amd64", "i686") else _NO_PAUSE
    return (_ARM_PAUSE if name in ("aarch64", "arm64") else pause) + "\n" + _POOL


PARALLEL = "@gw_parallel(ptr %context, ptr %fn, ptr %arg, i64 %n)"
"""Runs a parallel loop."""

POOL_IR = pool_ir(platform.machine())
