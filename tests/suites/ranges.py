#!/usr/bin/env python3
"""What fsx lacks: zero range, fallocate with and without the size kept, holes found again, and files of which most
still is the lower layer's when they are read.

Each round takes a file of the lower layer that nobody has changed yet, opens it for reading (and maps it) before the
first change, and then compares every read, by both descriptors and both mappings, with a copy in memory.

Arguments: the mount, its lower/ranges/ directory's number of files, operations for each file, a seed."""

import ctypes
import errno
import mmap
import os
import random
import sys

ZERO_RANGE, KEEP_SIZE, PUNCH_HOLE = 0x10, 0x01, 0x02
MAX = 200_000
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class File:
    def __init__(self, path, rng):
        self.path, self.rng = path, rng
        self.before = os.open(path, os.O_RDONLY)
        self.good = bytearray(os.pread(self.before, MAX, 0)) if rng.random() < 0.5 else None
        size = os.fstat(self.before).st_size
        self.mapped = mmap.mmap(self.before, size, mmap.MAP_SHARED, mmap.PROT_READ)
        if self.good is None:
            # Not read by way of the mount before the change: the lower file is made of its own offset.
            self.good = bytearray(content(int(os.path.basename(path)), size))
        self.fd = os.open(path, os.O_RDWR)
        self.done = []

    def close(self):
        self.mapped.close()
        os.close(self.before)
        os.close(self.fd)

    def grow(self, size):
        if size > len(self.good):
            self.good.extend(bytes(size - len(self.good)))

    def span(self, limit):
        offset = self.rng.randrange(limit)
        return offset, self.rng.randint(1, min(30_000, limit - offset))

    def put(self, offset, data):
        self.grow(offset + len(data))
        self.good[offset:offset + len(data)] = data

    def step(self):
        rng = self.rng
        what = rng.choice(["write", "write", "map", "zero", "zero keep", "punch", "allocate", "keep", "truncate",
                           "copy", "append", "sync", "reopen", "advise"])
        offset, length = self.span(MAX)
        size = len(self.good)
        self.done.append((what, offset, length))
        if what == "write":
            data = rng.randbytes(length)
            os.pwrite(self.fd, data, offset)
            self.put(offset, data)
        elif what == "append":
            data = rng.randbytes(min(length, max(0, MAX - size)))
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            os.write(fd, data)
            os.close(fd)
            self.put(size, data)
        elif what == "map":
            if size:
                offset, length = self.span(size)
                with mmap.mmap(self.fd, size, mmap.MAP_SHARED) as view:
                    data = rng.randbytes(length)
                    view[offset:offset + length] = data
                    if rng.random() < 0.3:
                        view.flush()
                self.put(offset, data)
        elif what in ("zero", "zero keep"):
            keep = KEEP_SIZE if what == "zero keep" else 0
            try:
                fallocate(self.fd, ZERO_RANGE | keep, offset, length)
            except OSError as error:
                # Not every file system below has it (tmpfs has not).
                if error.errno != errno.EOPNOTSUPP:
                    raise
                return
            if not keep:
                self.grow(offset + length)
            end = min(offset + length, len(self.good))
            if end > offset:
                self.good[offset:end] = bytes(end - offset)
        elif what == "punch":
            fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
            end = min(offset + length, size)
            if end > offset:
                self.good[offset:end] = bytes(end - offset)
        elif what == "allocate":
            fallocate(self.fd, 0, offset, length)
            self.grow(offset + length)
        elif what == "keep":
            fallocate(self.fd, KEEP_SIZE, offset, length)
        elif what == "truncate":
            os.ftruncate(self.fd, offset)
            del self.good[offset:]
            self.grow(offset)
        elif what == "copy":
            if size > 1:
                source = rng.randrange(size)
                length = min(length, size - source)
                target = rng.randrange(MAX - length)
                if source + length <= target or target + length <= source:
                    data = bytes(self.good[source:source + length])
                    done = 0
                    while done < length:
                        moved = os.copy_file_range(self.fd, self.fd, length - done, source + done, target + done)
                        assert moved > 0, "copy_file_range stopped"
                        done += moved
                    self.put(target, data)
        elif what == "sync":
            os.fsync(self.fd)
        elif what == "reopen":
            os.close(self.fd)
            self.fd = os.open(self.path, os.O_RDWR)
        elif what == "advise":
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def check(self):
        size = len(self.good)
        for fd in (self.fd, self.before):
            assert os.fstat(fd).st_size == size, (os.fstat(fd).st_size, size)
            offset, length = self.span(MAX)
            found = os.pread(fd, length, offset)
            assert found == self.good[offset:offset + length], f"read of {length} at {offset}"
        edge = min(size, len(self.mapped))
        if edge:
            offset, length = self.span(edge)
            assert self.mapped[offset:offset + length] == self.good[offset:offset + length], f"map {offset} {length}"

    def check_all(self):
        for fd in (self.fd, self.before):
            assert os.pread(fd, MAX + 1, 0) == self.good, "whole file"
        at = 0
        while at < len(self.good):
            try:
                data = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
                data = len(self.good)
            assert not any(self.good[at:data]), f"data in a hole between {at} and {data}"
            if data >= len(self.good):
                break
            at = os.lseek(self.fd, data, os.SEEK_HOLE)
            assert at > data


def content(number, size):
    return random.Random(number).randbytes(size)


def main():
    if sys.argv[1] == "make":
        # make DIR COUNT: the files of the lower layer, some with a hole.
        for number in range(int(sys.argv[3])):
            with open(os.path.join(sys.argv[2], str(number)), "wb") as file:
                file.write(content(number, 1000 + number * 7919 % 150_000))
        return
    at, files, steps, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    for number in range(files):
        rng = random.Random(seed * 1000 + number)
        file = File(os.path.join(at, str(number)), rng)
        try:
            for _ in range(steps):
                file.step()
                file.check()
            file.check_all()
        except Exception:
            print(f"seed {seed} file {number} after {file.done}", file=sys.stderr)
            raise
        file.close()
    print(f"ranges: {files * steps} operations, seed {seed}")


main()
