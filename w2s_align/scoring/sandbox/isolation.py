"""What the kernel offers to fence a process: namespaces, a root of its own, no capabilities, a system-call filter.

Runs inside the box (see ``box.py``), before any code that is not ours; standard library only. Every function says what
could not be set up, so that the user is told.
"""

import ctypes
import os
import platform
import resource
import struct
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
KEPT = {2: MS_NOSUID, 4: MS_NODEV, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
"""Flags of a mount as statvfs reports them (nosuid, nodev, noexec, noatime, nodiratime, relatime), and as mount takes
them."""
NOBODY = 65534
"""User and group without rights, by custom on every Linux."""
MEMORY_DISK = b"size=64m,nr_inodes=4096,mode=1777"
"""Of the folder that the code may write into; it counts as memory of the machine."""

DENIED = {
    "x86_64": (101, 310, 311, 165, 166, 155, 272, 308, 321, 298, 250, 248, 249, 425, 323, 246, 175, 313, 161),
    "aarch64": (117, 270, 271, 40, 39, 41, 97, 268, 280, 241, 219, 217, 218, 425, 282, 104, 105, 273, 51),
}
"""Numbers of: ptrace, process_vm_readv, process_vm_writev, mount, umount2, pivot_root, unshare, setns, bpf,
perf_event_open, keyctl, add_key, request_key, io_uring_setup, userfaultfd, kexec_load, init_module, finit_module,
chroot."""
CLONE3 = 435
"""On both machines. Its flags stand in memory, where a filter cannot look, so it is said not to exist: C libraries
then use clone."""
CLONE = {"x86_64": 56, "aarch64": 220}
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


class Unavailable(OSError):
    """The system does not offer a protection."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(what: str, result: int) -> None:
    if result != 0:
        raise Unavailable(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def own_namespaces(as_root: bool) -> bool:
    """Give this process mounts, network, host name and message queues of its own.

    Args:
        as_root: Try it without a user namespace first, which only root can.

    Returns:
        Whether this is the machine's root, outside a user namespace, so that the code can become nobody.

    Raises:
        Unavailable: The kernel, or the container around, does not allow it.
    """
    if not sys.platform.startswith("linux"):
        raise Unavailable(0, "namespaces: this is not Linux")
    kinds = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    libc = _libc()
    if as_root and os.geteuid() == 0 and libc.unshare(kinds) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    _call("namespaces", libc.unshare(CLONE_NEWUSER | kinds))
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    return False


def own_process_ids() -> None:
    """Give the children of this process process ids of their own: they see, and can signal, nobody else."""
    _call("process ids", _libc().unshare(CLONE_NEWPID))


def own_root(read_only: list[str], packages: list[str]) -> None:
    """Replace the file system by a read-only one in memory with what Python needs, and a writable ``/tmp``.

    Args:
        read_only: Folders that stay visible where they are.
        packages: Folders that appear in ``/packages``.

    Raises:
        Unavailable: A mount was refused.
    """
    libc = _libc()
    root = "/tmp"
    _call("private mounts", libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    # Sources must be opened before /tmp is covered, because one of them may lie there.
    sources = [(path, path) for path in read_only]
    sources += [(path, f"/packages/{os.path.basename(path)}") for path in packages]
    sources += [(path, path) for path in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")]
    opened = [
        (os.open(path, os.O_PATH), target, os.path.isdir(path)) for path, target in sources if os.path.exists(path)
    ]
    _call("root in memory", libc.mount(b"tmpfs", root.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, b"size=1m,mode=755"))
    for descriptor, target, is_folder in opened:
        place = root + target
        os.makedirs(place if is_folder else os.path.dirname(place), 0o755, exist_ok=True)
        if not is_folder:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
        _bind(libc, f"/proc/self/fd/{descriptor}", place)
        os.close(descriptor)
    for link in ("/lib", "/lib64", "/lib32", "/bin"):  # on most systems links into /usr
        if os.path.islink(link) and not os.path.exists(root + link):
            os.symlink(os.readlink(link), root + link)
    os.makedirs(root + "/tmp", exist_ok=True)
    os.makedirs(root + "/old", exist_ok=True)
    _call(
        "folder in memory", libc.mount(b"tmpfs", (root + "/tmp").encode(), b"tmpfs", MS_NOSUID | MS_NODEV, MEMORY_DISK)
    )
    number = PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise Unavailable(0, f"root: no number of pivot_root for {platform.machine()}")
    _call("root", libc.syscall(number, root.encode(), (root + "/old").encode()))
    os.chdir("/")
    _call("old root", libc.umount2(b"/old", MNT_DETACH))
    os.rmdir("/old")
    _call(
        "read-only root", libc.mount(None, b"/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, None)
    )
    os.chdir("/tmp")


def _bind(libc: ctypes.CDLL, source: str, place: str) -> None:
    _call(f"bind {place}", libc.mount(source.encode(), place.encode(), None, MS_BIND | MS_REC, None))
    # A user namespace may not take away flags that a mount came with (EPERM), so they are repeated.
    found = os.statvfs(place).f_flag
    flags = sum(mount_flag for stat_flag, mount_flag in KEPT.items() if found & stat_flag)
    flags |= MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | (MS_NODEV if os.path.isdir(place) else 0)
    _call(f"read-only {place}", libc.mount(None, place.encode(), None, flags, None))


def no_privileges(root: bool) -> None:
    """Give up every capability for good.

    Args:
        root: This is the machine's root, which becomes nobody first.
    """
    libc = _libc()
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _call("capabilities", libc.capset(header, bytes(24)))


def filter_calls() -> None:
    """Refuse the system calls that nobody needs to run a program, and that attacks are made of.

    Raises:
        Unavailable: No filter for this machine, or the kernel has none.
    """
    machine = platform.machine()
    if machine not in DENIED:
        raise Unavailable(0, f"system-call filter: none for {machine}")
    refuse, absent, allow = 0x00050000 | 1, 0x00050000 | 38, 0x7FFF0000  # EPERM, ENOSYS, allow
    load, equal, ret, masked = 0x20, 0x15, 0x06, 0x45
    program = [(load, 0, 0, 4), (equal, 1, 0, AUDIT_ARCH[machine]), (ret, 0, 0, refuse), (load, 0, 0, 0)]
    for number in DENIED[machine]:
        program += [(equal, 0, 1, number), (ret, 0, 0, refuse)]
    program += [(equal, 0, 1, CLONE3), (ret, 0, 0, absent)]
    # clone with a flag of a new user namespace (the flags are its first argument on both machines)
    program += [(equal, 0, 3, CLONE[machine]), (load, 0, 0, 16), (masked, 0, 1, CLONE_NEWUSER), (ret, 0, 0, refuse)]
    program += [(ret, 0, 0, allow)]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: number of instructions, padding, pointer to them
    header = struct.pack("HxxxxxxP" if struct.calcsize("P") == 8 else "HxxP", len(program), ctypes.addressof(buffer))
    _call("system-call filter", _libc().prctl(PR_SET_SECCOMP, 2, header, 0, 0))


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    if sys.platform.startswith("linux"):
        _libc().prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)


def not_readable() -> None:
    """Keep other processes of the same user out of this one's memory."""
    if sys.platform.startswith("linux"):
        _libc().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit(seconds: int, megabytes: int, processes: int) -> None:
    """Set the resource limits of this process and what it starts.

    Args:
        seconds: CPU time.
        megabytes: Address space in MiB.
        processes: Of this user, threads included; 0 for no limit.
    """
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, megabytes * 2**20),
        (resource.RLIMIT_FSIZE, 16 * 2**20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    if processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
