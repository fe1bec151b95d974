#!/usr/bin/env python3
"""Many processes change one tree at once: they unpack, build, rename and link, each in what is its own and some in what
all share. What comes of it is known beforehand, whoever is first: the checksum of the whole tree is that of the same
work on a plain directory.

Arguments: the place to work in (it has `sources/`, on a mount as part of the lower layer), workers, rounds.
Prints the checksum."""

import hashlib
import multiprocessing
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import time


def make(at):
    """A small project, and files with several names."""
    os.makedirs(os.path.join(at, "deep"))
    for number in range(12):
        with open(os.path.join(at, f"part{number}.c"), "w") as file:
            file.write(f"int part{number}(int x) {{ return x * {number + 3} + {number}; }}\n")
    with open(os.path.join(at, "main.c"), "w") as file:
        for number in range(12):
            file.write(f"int part{number}(int);\n")
        calls = " ^ ".join(f"part{number}(argc)" for number in range(12))
        file.write(f"int main(int argc, char **argv) {{ (void)argv; return ({calls}) & 63; }}\n")
    with open(os.path.join(at, "Makefile"), "w") as file:
        objects = " ".join(["main.o", *(f"part{number}.o" for number in range(12))])
        file.write(f"program: {objects}\n\tcc -o $@ {objects}\n%.o: %.c\n\tcc -O1 -c -o $@.tmp $<\n\tmv $@.tmp $@\n")
    for number in range(60):
        with open(os.path.join(at, "deep", f"data{number:02}"), "wb") as file:
            file.write(random.Random(number).randbytes(number * 997))
    for number in range(0, 60, 10):
        os.link(os.path.join(at, "deep", f"data{number:02}"), os.path.join(at, "deep", f"again{number:02}"))


def unpack(at, worker, rounds):
    """tar writes what tar reads, over what is there."""
    for number in range(rounds):
        own = os.path.join(at, f"unpacked{worker}")
        os.makedirs(own, exist_ok=True)
        pack = subprocess.Popen(["tar", "-cf", "-", "-C", at, "sources"], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-xf", "-", "-C", own], stdin=pack.stdout, check=True)
        assert pack.wait() == 0
        if number + 1 < rounds:
            shutil.rmtree(own)


def build(at, worker, rounds):
    own = os.path.join(at, f"built{worker}")
    shutil.copytree(os.path.join(at, "sources"), own)
    for _ in range(rounds):
        subprocess.run(["make", "-s", "-j2", "-C", own], check=True)
        assert subprocess.run([os.path.join(own, "program")]).returncode == expected()
        os.utime(os.path.join(own, f"part{worker}.c"))


def expected():
    result = 0
    for number in range(12):
        result ^= (number + 3) + number
    return result & 63


def rename(at, worker, rounds):
    """Names of all workers in a few directories of all: a name is moved, exchanged by way of a third, and found again."""
    rng = random.Random(worker)
    dirs = [os.path.join(at, "shared", name) for name in "abc"]
    where = {}
    for number in range(20):
        where[number] = os.path.join(dirs[number % 3], f"w{worker}-{number}")
        with open(where[number], "wb") as file:
            file.write(f"{worker}-{number}".encode() * 100)
    for _ in range(rounds * 150):
        number = rng.randrange(20)
        new = os.path.join(rng.choice(dirs), f"w{worker}-{number}")
        os.rename(where[number], new)
        where[number] = new
        other = rng.randrange(20)
        with open(where[other], "rb") as file:
            assert file.read() == f"{worker}-{other}".encode() * 100
        os.listdir(rng.choice(dirs))
    # Where each lies at the end does not depend on others.
    for number in range(20):
        os.rename(where[number], os.path.join(dirs[number % 3], f"w{worker}-{number}"))


def link_soon(source, name):
    """Makes a name. The kernel may count one too few for some milliseconds and say that there is no such file; not for good."""
    end = time.monotonic() + 5
    while True:
        try:
            return os.link(source, name)
        except FileNotFoundError:
            if time.monotonic() > end:
                raise
            time.sleep(0.005)


def link(at, worker, rounds):
    """All workers take names of the same files, and give them back."""
    rng = random.Random(worker)
    mine = os.path.join(at, f"linked{worker}")
    os.mkdir(mine)
    for _ in range(rounds * 60):
        number = rng.randrange(0, 60)
        name = os.path.join(mine, f"{number}")
        try:
            link_soon(os.path.join(at, "sources", "deep", f"data{number:02}"), name)
        except FileExistsError:
            os.unlink(name)
    for number in range(60):
        name = os.path.join(mine, f"{number}")
        if os.path.lexists(name):
            os.unlink(name)
        if number % 7 == worker % 7:
            link_soon(os.path.join(at, "sources", "deep", f"data{number:02}"), name)


def change(at, worker, rounds):
    """Everybody writes a part of his own into the same files, of which some have several names."""
    for _ in range(rounds):
        for number in range(30, 60):
            fd = os.open(os.path.join(at, "sources", "deep", f"data{number:02}"), os.O_RDWR)
            os.pwrite(fd, bytes([65 + worker]) * 100, worker * 100)
            assert os.pread(fd, 100, worker * 100) == bytes([65 + worker]) * 100
            os.close(fd)
            if number % 10 == 0:
                with open(os.path.join(at, "sources", "deep", f"again{number:02}"), "rb") as file:
                    file.seek(worker * 100)
                    assert file.read(100) == bytes([65 + worker]) * 100


def checksum(at):
    """Names, kinds, modes, links and contents."""
    total = hashlib.sha256()
    for base, dirs, files in os.walk(at):
        dirs.sort()
        for name in sorted(files + dirs):
            full = os.path.join(base, name)
            facts = os.lstat(full)
            own = stat.S_ISDIR(facts.st_mode)
            links = 0 if own else facts.st_nlink
            total.update(f"{os.path.relpath(full, at)} {facts.st_mode:o} {links}\n".encode())
            if stat.S_ISREG(facts.st_mode):
                with open(full, "rb") as file:
                    total.update(hashlib.sha256(file.read()).digest())
    return total.hexdigest()


def phase(at, rounds, works):
    processes = [multiprocessing.Process(target=work, args=(at, worker, rounds)) for work, worker in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit("a worker failed")


def main():
    if sys.argv[1] == "make":
        return make(sys.argv[2])
    at, workers, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.umask(0o022)
    for name in "abc":
        os.makedirs(os.path.join(at, "shared", name))
    phase(at, rounds, [(work, worker) for worker in range(workers) for work in (change, rename, link)])
    phase(at, rounds, [(work, worker) for worker in range(workers) for work in (unpack, build, rename_again)])
    print(checksum(at))


def rename_again(at, worker, rounds):
    rename(at, worker + 100, rounds)


main()
