#!/usr/bin/env python3
"""The same random system calls on a mount of ours and on one of kernel overlayfs, over the same layers.

Each stack has its own lowers and uppers. After every operation the outcomes must be equal (result or errno); after every
batch the trees as programs see them; and at the end of a stack the upper directories, where the two can be compared.
Some batches end with both mounted anew, so that caches are empty and what was written must suffice.

Needs root, and a mount namespace of its own. Arguments: the program fim, a scratch directory, operations, a seed."""

import ctypes
import errno
import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys

PER_STACK, PER_BATCH = 600, 60
NAMES = ["a", "b", "c", "d", "é"]
MORE_NAMES = [*NAMES, "e", "f", "g"]
# Never upwards and never absolute: what follows them stays on its side.
TARGETS = ["a", "b/c", "none", "."]
OLD = 1_000_000_000
NOREPLACE, EXCHANGE = 1, 2
USERS = [0] * 8 + [1001, 1002]
LONG = "n" * 256

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def checked(result):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Side:
    """One of the two mounts: carries operations out."""

    def __init__(self, root, lists_whiteouts):
        self.root, self.lists_whiteouts = root, lists_whiteouts
        self.held = {}

    def release(self):
        for fd in self.held.values():
            os.close(fd)
        self.held = {}

    def at(self, path):
        return os.path.join(self.root, path)

    def apply(self, op):
        what, user, umask, *words = op
        os.umask(umask)
        if user:
            os.setegid(user)
            os.seteuid(user)
        try:
            return getattr(self, what)(*words)
        except OSError as error:
            return errno.errorcode[error.errno]
        finally:
            if user:
                os.seteuid(0)
                os.setegid(0)

    def create(self, path, mode):
        os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def overwrite(self, path, data):
        fd = os.open(self.at(path), os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW, 0o644)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def write(self, path, offset, data):
        fd = os.open(self.at(path), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            return os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def append(self, path, data):
        fd = os.open(self.at(path), os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            return os.write(fd, data)
        finally:
            os.close(fd)

    def read(self, path):
        fd = os.open(self.at(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.pread(fd, 100_000, 0)
        finally:
            os.close(fd)

    def fallocate(self, path, mode, offset, length):
        fd = os.open(self.at(path), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            checked(libc.fallocate(fd, mode, offset, length))
        finally:
            os.close(fd)

    def copy(self, source, target, length):
        source = os.open(self.at(source), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if os.fstat(source).st_size == 0:
                return 0  # Nothing is written, and the kernel's sets times all the same.
            target = os.open(self.at(target), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                return os.copy_file_range(source, target, length, 0, 3)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def truncate(self, path, length):
        facts = os.stat(self.at(path))
        if stat.S_ISREG(facts.st_mode) and facts.st_size == length:
            return None  # Nothing changes; the kernel's overlayfs sets times all the same where it copies up for it.
        os.truncate(self.at(path), length)

    def mkdir(self, path, mode):
        os.mkdir(self.at(path), mode)

    def symlink(self, target, path):
        os.symlink(target, self.at(path))

    def mknod(self, path, mode, major, minor):
        os.mknod(self.at(path), mode, os.makedev(major, minor))

    def unlink(self, path):
        os.unlink(self.at(path))

    def rmdir(self, path):
        os.rmdir(self.at(path))

    def link(self, source, target):
        os.link(self.at(source), self.at(target), follow_symlinks=False)

    def rename(self, source, target, flags):
        checked(libc.renameat2(-100, self.at(source).encode(), -100, self.at(target).encode(), flags))

    def chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    def chown(self, path, uid, gid):
        os.chown(self.at(path), uid, gid, follow_symlinks=False)

    def utime(self, path, seconds):
        os.utime(self.at(path), (seconds, seconds), follow_symlinks=False)

    def setxattr(self, path, name, value, flags):
        os.setxattr(self.at(path), name, value, flags, follow_symlinks=False)

    def getxattr(self, path, name):
        return os.getxattr(self.at(path), name, follow_symlinks=False)

    def removexattr(self, path, name):
        os.removexattr(self.at(path), name, follow_symlinks=False)

    def stat(self, path):
        return attributes(os.lstat(self.at(path)))

    def access(self, path, mode):
        return os.access(self.at(path), mode, effective_ids=True)

    def readlink(self, path):
        return os.readlink(self.at(path))

    def list(self, path):
        return listed(self.at(path), self.lists_whiteouts)

    def sync(self, path):
        fd = os.open(self.at(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # Held descriptors. Files are opened for writing: one opened for reading before a copy-up goes on reading the lower
    # file at the kernel's, and sees what is written at ours.
    def hold(self, slot, path):
        fd = os.open(self.at(path), os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
        self.put(slot, fd)

    def hold_dir(self, slot, path):
        self.put(slot, os.open(self.at(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))

    def put(self, slot, fd):
        if slot in self.held:
            os.close(self.held[slot])
        self.held[slot] = fd

    def fd(self, slot):
        if slot not in self.held:
            raise OSError(errno.EBADF, "nothing is held")
        return self.held[slot]

    def held_write(self, slot, offset, data):
        return os.pwrite(self.fd(slot), data, offset)

    def held_read(self, slot):
        return os.pread(self.fd(slot), 100_000, 0)

    def held_truncate(self, slot, length):
        os.ftruncate(self.fd(slot), length)

    def held_chmod(self, slot, mode):
        os.fchmod(self.fd(slot), mode)

    def held_stat(self, slot):
        return attributes(os.fstat(self.fd(slot)))

    def held_mkdir(self, slot, name, mode):
        os.mkdir(name, mode, dir_fd=self.fd(slot))

    def held_list(self, slot):
        return listed(self.fd(slot), self.lists_whiteouts)


def listed(directory, lists_whiteouts):
    """The names of a directory, sorted. The kernel's lists whiteouts of a directory that only one layer has; they are no
    entries all the same."""
    names = os.listdir(directory)
    if lists_whiteouts:
        fd = directory if isinstance(directory, int) else os.open(directory, os.O_PATH)
        names = [name for name in names if exists(fd, name)]
        if fd is not directory:
            os.close(fd)
    return sorted(names)


def exists(fd, name):
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
        return True
    except FileNotFoundError:
        return False
    except PermissionError:
        return True


def attributes(seen):
    """What both must agree on. Sizes and links of directories are everybody's own."""
    kind = stat.S_IFMT(seen.st_mode)
    own = kind == stat.S_IFDIR
    mtime = seen.st_mtime if seen.st_mtime < OLD + 1_000 else "recent"
    return (oct(seen.st_mode), seen.st_uid, seen.st_gid, "-" if own else seen.st_nlink,
            "-" if own else seen.st_size, seen.st_rdev, mtime)


def dump(root, lists_whiteouts=False):
    """Everything that can be seen of a tree."""
    seen = {}
    pending = [""]
    while pending:
        path = pending.pop()
        full = os.path.join(root, path)
        facts = os.lstat(full)
        content = None
        if stat.S_ISREG(facts.st_mode):
            with open(full, "rb") as file:
                content = hashlib.sha256(file.read()).hexdigest()
        elif stat.S_ISLNK(facts.st_mode):
            content = os.readlink(full)
        elif stat.S_ISDIR(facts.st_mode):
            pending.extend(os.path.join(path, name) for name in listed(full, lists_whiteouts))
        # Whose names are hidden is everybody's own: the kernel's does not hide the ones that it does not read.
        names = sorted(name for name in os.listxattr(full, follow_symlinks=False) if not name.startswith(("trusted.", "user.overlay.")))
        values = [(name, os.getxattr(full, name, follow_symlinks=False)) for name in names]
        seen[path] = (attributes(facts), content, values)
    return seen


def marks(root):
    """What an upper holds: whiteouts, directories, and files with their contents unless these are elsewhere."""
    seen = {}
    for base, dirs, files in os.walk(root):
        for name in dirs + files:
            full = os.path.join(base, name)
            path = os.path.relpath(full, root)
            facts = os.lstat(full)
            kind = stat.S_IFMT(facts.st_mode)
            if kind == stat.S_IFCHR and facts.st_rdev == 0:
                seen[path] = "whiteout"
            elif kind == stat.S_IFREG:
                there = {mark.split(".")[-1] for mark in os.listxattr(full)}
                with open(full, "rb") as file:
                    seen[path] = None if "metacopy" in there else hashlib.sha256(file.read()).hexdigest()
            else:
                seen[path] = kind
    return seen


class Stack:
    """The same lowers under both, an upper for each."""

    def __init__(self, fim, scratch, rng):
        self.fim, self.scratch, self.rng = fim, scratch, rng
        self.lowers = [os.path.join(scratch, f"lower{number}") for number in range(rng.choice([1, 1, 2, 3]))]
        self.metacopy = rng.choice(["on", "off"])
        for number, lower in enumerate(self.lowers):
            os.makedirs(lower)
            self.fill(lower, 3, number > 0)
        for name in ["ours", "ours-upper", "ours-work", "kernel", "kernel-upper", "kernel-work"]:
            os.mkdir(os.path.join(scratch, name))
        for base, dirs, files in os.walk(scratch, topdown=False):
            for name in dirs + files:
                os.utime(os.path.join(base, name), (OLD, OLD), follow_symlinks=False)
        self.ours, self.kernel = (
            Side(os.path.join(scratch, "ours"), False), Side(os.path.join(scratch, "kernel"), True))
        self.before = [dump(lower) for lower in self.lowers]

    def fill(self, at, depth, upper):
        rng = self.rng
        for name in NAMES[:rng.randint(2, 5)]:
            path = os.path.join(at, name)
            kind = rng.choice(["file"] * 4 + ["dir"] * 5 + ["symlink", "fifo", "device"] + ["whiteout"] * upper)
            if kind == "dir" and depth:
                os.mkdir(path)
                self.fill(path, depth - 1, upper)
                os.chmod(path, rng.choice([0o755, 0o755, 0o777, 0o1777, 0o2775, 0o700]))
                if upper and rng.random() < 0.2:
                    # Each reads the name of its own.
                    os.setxattr(path, "user.overlay.opaque", b"y")
                    os.setxattr(path, "trusted.overlay.opaque", b"y")
            elif kind == "symlink":
                os.symlink(rng.choice(NAMES), path)
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "device":
                os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            elif kind == "whiteout":
                os.mknod(path, stat.S_IFCHR, 0)
                continue
            else:
                with open(path, "wb") as file:
                    file.write(rng.randbytes(rng.choice([0, 10, 5_000, 40_000])))
                os.chmod(path, rng.choice([0o644, 0o666, 0o4755, 0o600]))
                if rng.random() < 0.2:
                    os.setxattr(path, "user.x", b"of the layer")
                if rng.random() < 0.3 and not os.path.lexists(path + "2"):
                    os.link(path, path + "2")
            os.chown(path, *rng.choice([(0, 0), (1001, 1001), (1002, 1001)]), follow_symlinks=False)
            if kind == "file":
                os.chmod(path, rng.choice([0o644, 0o666, 0o4755, 0o600]))

    def mount(self):
        layers = [word for lower in self.lowers for word in ("--layer", lower)]
        at = lambda name: os.path.join(self.scratch, name)
        subprocess.run([self.fim, "mount", "-o", "suid,dev,allow_other", *layers, "--upper", at("ours-upper"),
                        "--work", at("ours-work"), at("ours")], check=True)
        options = (f"lowerdir={':'.join(reversed(self.lowers))},upperdir={at('kernel-upper')},"
                   f"workdir={at('kernel-work')},redirect_dir=on,index=on,metacopy={self.metacopy}")
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, at("kernel")], check=True)

    def unmount(self):
        self.ours.release()
        self.kernel.release()
        subprocess.run([self.fim, "umount", self.ours.root], check=True)
        subprocess.run(["umount", self.kernel.root], check=True)

    def is_same(self, ours, kernel):
        """Whether attributes agree. Where the kernel copies metadata alone it gives a file the current time when it copies
        the data, although nothing is written (open for writing is enough)."""
        if ours == kernel:
            return True
        # Sgid without execution by the group means nothing. A write by somebody who is not of the group clears it at the
        # kernel's; we are not told the groups of who writes.
        mode = int(ours[0], 8)
        if mode & 0o2010 == 0o2000 and kernel[0] == oct(mode & ~0o2000):
            ours = (kernel[0], *ours[1:])
        if ours == kernel:
            return True
        return self.metacopy == "on" and ours[:-1] == kernel[:-1] and kernel[-1] == "recent"

    def check(self, done):
        ours, kernel = dump(self.ours.root), dump(self.kernel.root, True)
        for path in sorted(ours.keys() | kernel.keys()):
            mine, theirs = ours.get(path), kernel.get(path)
            if mine and theirs and mine[1:] == theirs[1:] and self.is_same(mine[0], theirs[0]):
                continue
            if mine != theirs:
                fail(f"{path!r}: ours {ours.get(path)}, the kernel's {kernel.get(path)}", done)

    def finish(self, done):
        for lower, before in zip(self.lowers, self.before):
            if dump(lower) != before:
                fail(f"{lower} has changed", done)
        ours = marks(os.path.join(self.scratch, "ours-upper"))
        kernel = marks(os.path.join(self.scratch, "kernel-upper"))
        if any(facts[0][3] not in ("-", 1) for dumped in self.before for facts in dumped.values()):
            # Under which of its names a file is kept is everybody's own choice.
            return
        for path in sorted(ours.keys() | kernel.keys()):
            mine, theirs = ours.get(path), kernel.get(path)
            if mine is None and theirs != "whiteout":
                continue  # The kernel copies up before it finds out that an operation fails.
            if mine != theirs and not (path in kernel and None in (mine, theirs)):
                fail(f"the uppers: {path!r}: ours {mine}, the kernel's {theirs}", done)


def short(op):
    return tuple(f"{len(word)} bytes" if isinstance(word, bytes) and len(word) > 30 else word for word in op)


def fail(what, done):
    for op in done[-40:]:
        print("   ", short(op))
    print(f"DIFFERENT after {len(done)} operations: {what}")
    sys.exit(1)


def choose(rng, known):
    """An operation, mostly on what there is; `known`: the paths of the last look by kind."""
    def of(*kinds):
        paths = [path for kind in kinds for path in known.get(kind, [])]
        return rng.choice(paths) if paths and rng.random() < 0.8 else path()

    def file():
        return of(stat.S_IFREG)

    def directory():
        return of(stat.S_IFDIR)

    def any():
        return of(*known)

    def new():
        return os.path.join(directory(), rng.choice(MORE_NAMES)) if rng.random() < 0.8 else path()

    def path():
        depth = rng.choice([1, 2, 2, 3, 3, 4])
        words = [rng.choice(NAMES) for _ in range(depth)]
        if rng.random() < 0.01:
            words[-1] = LONG
        return "/".join(words)

    data = lambda: rng.randbytes(rng.choice([1, 20, 3_000]))
    mode = lambda: rng.choice([0o644, 0o600, 0o755, 0o777, 0o4755, 0o2755, 0o1777, 0o2770, 0o400, 0])
    offset = lambda: rng.choice([0, 1, 100, 5_000, 39_999])
    slot = rng.randrange(3)
    name = lambda: rng.choice(["user.x", "user.x", "user.y", "trusted.z", "security.w"])
    what = rng.choices(*zip(*WEIGHTS))[0]
    words = {
        "create": lambda: (new(), mode()),
        "overwrite": lambda: (file(), data()),
        "write": lambda: (file(), offset(), data()),
        "append": lambda: (file(), data()),
        "read": lambda: (file(),),
        "fallocate": lambda: (file(), rng.choice([0, 1, 3]), offset(), rng.choice([1, 4_096, 9_000])),
        "copy": lambda: (file(), file(), rng.choice([1, 5_000])),
        "truncate": lambda: (file(), offset()),
        "mkdir": lambda: (new(), mode()),
        "symlink": lambda: (rng.choice(TARGETS), new()),
        "mknod": lambda: (new(), rng.choice([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]) | 0o644,
                          rng.choice([1, 1, 0]), rng.choice([3, 0])),
        "unlink": lambda: (any(),),
        "rmdir": lambda: (directory(),),
        "link": lambda: (rng.choice([file, any])(), new()),
        "rename": lambda: (any(), rng.choice([new, new, any])(), rng.choice([0] * 6 + [NOREPLACE, EXCHANGE, EXCHANGE, 3])),
        "chmod": lambda: (any(), mode()),
        "chown": lambda: (any(), rng.choice([-1, 0, 1001, 1002]), rng.choice([-1, 0, 1001, 1002])),
        "utime": lambda: (any(), OLD + rng.randrange(1_000)),
        "setxattr": lambda: (any(), name(), data()[:30], rng.choice([0, 0, 0, 1, 2])),
        "getxattr": lambda: (any(), name()),
        "removexattr": lambda: (any(), name()),
        "stat": lambda: (any(),),
        "access": lambda: (any(), rng.choice([1, 2, 4, 7])),
        "readlink": lambda: (any(),),
        "list": lambda: (directory(),),
        "sync": lambda: (any(),),
        "hold": lambda: (slot, file()),
        "hold_dir": lambda: (slot, directory()),
        "held_write": lambda: (slot, offset(), data()),
        "held_read": lambda: (slot,),
        "held_truncate": lambda: (slot, offset()),
        "held_chmod": lambda: (slot, mode()),
        "held_stat": lambda: (slot,),
        "held_mkdir": lambda: (slot, rng.choice(NAMES), mode()),
        "held_list": lambda: (slot,),
    }[what]()
    return (what, rng.choice(USERS), rng.choice([0, 0o022, 0o077]), *words)


WEIGHTS = [
    ("create", 6), ("overwrite", 4), ("write", 4), ("append", 2), ("read", 2), ("fallocate", 2), ("copy", 2),
    ("truncate", 3), ("mkdir", 6), ("symlink", 2), ("mknod", 2), ("unlink", 6), ("rmdir", 5), ("link", 5),
    ("rename", 14), ("chmod", 4), ("chown", 4), ("utime", 3), ("setxattr", 3), ("getxattr", 1), ("removexattr", 2),
    ("stat", 3), ("access", 2), ("readlink", 1), ("list", 2), ("sync", 1), ("hold", 5), ("hold_dir", 4),
    ("held_write", 2), ("held_read", 2), ("held_truncate", 1), ("held_chmod", 1), ("held_stat", 2), ("held_mkdir", 1),
    ("held_list", 1),
]


def is_excused(stack, op, ours, kernel):
    """Differences that are meant, each with its reason."""
    what = op[0]
    if what in ("stat", "held_stat") and isinstance(ours, tuple) and isinstance(kernel, tuple):
        return stack.is_same(ours, kernel)
    # The kernel takes two names of one copied-up file for two files; to us there is nothing to do.
    if what == "rename" and ours is None and kernel == "ESTALE":
        return True
    return False


def run(fim, scratch, operations, seed):
    rng = random.Random(seed)
    stack = Stack(fim, scratch, rng)
    stack.mount()
    done = []
    try:
        while len(done) < operations:
            known = {}
            for path, facts in sorted(dump(stack.kernel.root, True).items()):
                known.setdefault(stat.S_IFMT(int(facts[0][0], 8)), []).append(path)
            for _ in range(min(PER_BATCH, operations - len(done))):
                op = choose(rng, known)
                ours, kernel = stack.ours.apply(op), stack.kernel.apply(op)
                done.append(op)
                if ours != kernel and not is_excused(stack, op, ours, kernel):
                    fail(f"{short(op)}: ours {ours!r}, the kernel's {kernel!r}", done)
            stack.check(done)
            if rng.random() < 0.3:
                stack.unmount()
                stack.mount()
                stack.check(done)
    finally:
        stack.unmount()
    stack.finish(done)
    return len(done)


def main():
    fim, scratch, operations, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    done, stacks = 0, 0
    while done < operations:
        place = os.path.join(scratch, f"stack{seed + stacks}")
        os.mkdir(place)
        os.chmod(place, 0o755)
        try:
            done += run(fim, place, min(PER_STACK, operations - done), seed + stacks)
        except SystemExit:
            print(f"seed {seed + stacks}: tests/suites/differ.py FIM DIR {PER_STACK} {seed + stacks}")
            raise
        shutil.rmtree(place)
        stacks += 1
    print(f"differ: {done} operations on {stacks} stacks, no difference; seeds from {seed}")


main()
