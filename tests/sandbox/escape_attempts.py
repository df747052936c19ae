"""What code might try that wants out of the sandbox, or to take the evaluator down with it.

Each attempt is a script. It reads ``world`` (what there is to reach on the host), calls ``tried()`` when the attempt
has been made, and ``escaped(what)`` where it got what it should not have.
"""

from dataclasses import dataclass

PRELUDE = """
import ctypes, errno, json, mmap, os, signal, socket, struct, sys, threading, time
world = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
def say(word):
    os.write(1, (word + "\\n").encode())
def tried():
    say("TRIED")
def escaped(what):
    say(f"ESCAPED {what!r}")
def reads(*paths):
    for path in paths:
        try:
            escaped((path, os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(200)))
        except OSError:
            pass
def refused(call, *errors):
    try:
        escaped(call())
    except OSError as error:
        assert not errors or error.errno in errors, error
def put(path, text):
    file = os.open(path, os.O_WRONLY)
    try:
        return os.write(file, text)
    finally:
        os.close(file)
def system_call(number, *arguments):
    ctypes.set_errno(0)
    if (result := libc.syscall(number, *arguments)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""


@dataclass(frozen=True)
class Attempt:
    """One way out; ``ends``: what is said of the limit that ends it; ``control``: without a sandbox it succeeds."""

    name: str
    code: str
    ends: str = ""
    seconds: float = 20.0
    control: bool = False


NETWORK = (
    Attempt(
        "tcp to the host's loopback",
        'refused(lambda: socket.create_connection(("127.0.0.1", world["tcp"]), 2)); tried()',
        control=True,
    ),
    Attempt(
        "tcp to the host's own address",
        'refused(lambda: socket.create_connection((world["address"], world["tcp"]), 2)); tried()',
        control=True,
    ),
    Attempt("tcp to the internet", 'refused(lambda: socket.create_connection(("192.0.2.1", 443), 2)); tried()'),
    Attempt(
        "udp to the host",
        """
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for address in ("127.0.0.1", world["address"]):
    try:
        sender.sendto(b"hello", (address, world["udp"]))
    except OSError:
        pass
tried()
""",
    ),
    Attempt("a name looked up", 'refused(lambda: socket.getaddrinfo("example.org", 443)); tried()'),
    Attempt(
        "a unix socket of the host",
        """
def connect():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(world["unix"])
        return "connected"
refused(connect); tried()
""",
        control=True,
    ),
    Attempt(
        "an abstract unix socket of the host",
        """
def connect():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\\0" + world["abstract"])
        return "connected"
refused(connect); tried()
""",
        control=True,
    ),
    Attempt(
        "sockets that network namespaces do not hold, and raw ones",
        """
audit = 9
for family, kind, protocol in ((socket.AF_VSOCK, socket.SOCK_STREAM, 0), (socket.AF_NETLINK, socket.SOCK_RAW, audit),
                               (socket.AF_PACKET, socket.SOCK_RAW, 0), (socket.AF_ALG, socket.SOCK_SEQPACKET, 0)):
    refused(lambda: socket.socket(family, kind, protocol), errno.EAFNOSUPPORT)
refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), errno.EPERM)
tried()
""",
        control=True,
    ),
)

RESOURCES = (
    Attempt(
        "as many processes as there can be",
        """
count = 0
try:
    while count < 1000:
        if os.fork() == 0:
            signal.pause()
        count += 1
    escaped(count)
except OSError as error:
    assert error.errno == errno.EAGAIN and count < world["processes"]
tried()
""",
    ),
    Attempt(
        "a fork bomb",
        """
tried()
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
        ends="worked for more than",
        seconds=3,
    ),
    Attempt(
        "a bomb of threads",
        """
count, stay = 0, threading.Event()
threading.stack_size(65536)
try:
    while count < 1000:
        threading.Thread(target=stay.wait, daemon=True).start()
        count += 1
    escaped(count)
except RuntimeError:
    assert count < world["processes"]
tried(); os._exit(0)
""",
    ),
    Attempt(
        "all memory in one process",
        """
try:
    escaped(len(bytearray(2 ** 31)))
except MemoryError:
    tried()
""",
    ),
    Attempt(
        "memory in many processes, each within its limit",
        """
tried()
for _ in range(10):
    if os.fork() == 0:
        kept = b"x" * (100 * 2 ** 20)
        signal.pause()
signal.pause()
""",
        ends="GiB of memory",
    ),
    Attempt(
        "memory that processes share",
        """
tried()
for _ in range(10):
    if os.fork() == 0:
        kept = mmap.mmap(-1, 100 * 2 ** 20)
        kept.write(b"x" * len(kept))
        signal.pause()
signal.pause()
""",
        ends="GiB of memory",
    ),
    Attempt(
        "System V shared memory",
        """
libc.shmget.restype = ctypes.c_int
assert libc.shmget(0, 4096, 0o1600) == -1 or escaped("shmget")
assert ctypes.get_errno() == errno.EPERM
tried()
""",
    ),
    Attempt(
        "files in anonymous memory", 'refused(lambda: os.memfd_create("hidden"), errno.EPERM); tried()', control=True
    ),
    Attempt(
        "shared memory filled up",
        """
written = 0
try:
    for number in range(100):
        written += open(f"/dev/shm/{number}", "wb", 0).write(bytes(4 * 2 ** 20))
    escaped(written)
except OSError as error:
    assert error.errno == errno.ENOSPC and written <= 64 * 2 ** 20
tried()
""",
    ),
    Attempt(
        "the disk filled with one file",
        """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
written = 0
try:
    with open("one", "wb", 0) as file:
        while written < 2 ** 30:
            written += file.write(bytes(2 ** 20))
    escaped(written)
except OSError as error:
    assert error.errno == errno.EFBIG and written <= world["file"]
tried()
""",
    ),
    Attempt(
        "the disk filled with many files",
        """
written = 0
try:
    for number in range(1000):
        written += open(f"file-{number}", "wb", 0).write(bytes(2 ** 20))
    escaped(written)
except OSError as error:
    assert error.errno == errno.ENOSPC and written <= world["disk"]
tried()
""",
    ),
    Attempt(
        "more empty files than the memory can name",
        """
tried()
number = 0
while True:
    os.close(os.open(f"/scratch/{number}", os.O_CREAT))
    number += 1
""",
        ends="files",
    ),
    Attempt(
        "processor time in many processes",
        """
tried()
for _ in range(3):
    os.fork()
while True:
    pass
""",
        ends="processor time",
    ),
    Attempt(
        "a recursion without end",
        """
tried()
sys.setrecursionlimit(2 ** 31 - 1)
def deeper(value):
    return sorted([value], key=deeper)
deeper(0)
""",
    ),
)

READING = (
    Attempt("the host's password file", 'reads("/etc/shadow", "/etc/gshadow", "/etc/sudoers"); tried()', control=True),
    Attempt("the home folder", 'reads(world["home"]); tried()', control=True),
    Attempt(
        "credentials in the home folder",
        """
for name in (".netrc", ".ssh/id_ed25519", ".cache/huggingface/token"):
    reads(world["home"] + "/" + name)
tried()
""",
        control=True,
    ),
    Attempt(
        "another user's files below /root and /home",
        """
for top in ("/root", "/home"):
    for folder, inner, files in os.walk(top):
        inner[:] = [name for name in inner if f"{folder}/{name}" not in world["python"]]
        if files or not any(shown.startswith(folder) for shown in world["python"]):
            escaped((folder, files))
tried()
""",
    ),
    Attempt(
        "the environment of every process",
        """
for process in filter(str.isdigit, os.listdir("/proc")):
    try:
        environment = open(f"/proc/{process}/environ").read()
    except OSError:
        continue
    if world["secret"] in environment:
        escaped(process)
tried()
""",
        control=True,
    ),
    Attempt("its own environment", 'world["secret"] in str(dict(os.environ)) and escaped("secret"); tried()'),
    Attempt(
        "the command lines of the host's processes",
        """
for process in filter(str.isdigit, os.listdir("/proc")):
    try:
        if world["victim_argument"] in open(f"/proc/{process}/cmdline").read().split("\\0"):
            escaped(process)
    except OSError:
        pass
tried()
""",
        control=True,
    ),
    Attempt(
        "memory and disks of the machine",
        'reads("/dev/mem", "/dev/kmem", "/proc/kcore", "/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/kmsg"); tried()',
    ),
    Attempt("the machine's settings", 'reads("/sys", "/sys/fs/cgroup", "/sys/kernel/debug"); tried()', control=True),
    Attempt("the host's temporary files", 'reads(world["folder"]); tried()', control=True),
    Attempt(
        "descriptors left open",
        """
for number in range(3, 512):
    try:
        escaped((number, os.fstat(number)))
    except OSError:
        pass
tried()
""",
    ),
)

PROCESSES = (
    Attempt(
        "killing a process of the host",
        """
refused(lambda: os.kill(world["victim"], signal.SIGKILL), errno.ESRCH)
refused(lambda: os.kill(world["evaluator"], signal.SIGKILL), errno.ESRCH)
tried()
""",
    ),
    Attempt("killing everything", "tried(); os.kill(-1, signal.SIGKILL)"),
    Attempt("killing the parent's group", "tried(); os.killpg(os.getppid(), signal.SIGKILL)"),
    Attempt(
        "signals to the sandbox's first process",
        """
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    os.kill(1, number)
os.kill(1, signal.SIGKILL); os.kill(1, signal.SIGSTOP)
tried()
""",
    ),
    Attempt(
        "looking into another process's memory",
        """
ptrace, read, write = (101, 310, 311) if os.uname().machine == "x86_64" else (117, 270, 271)
for number in (ptrace, read, write):
    refused(lambda: system_call(number, 16, os.getppid(), 0, 0, 0, 0), errno.EPERM)
for pid in (world["evaluator"], world["victim"]):
    refused(lambda: open(f"/proc/{pid}/mem", "r+b"))
tried()
""",
    ),
    Attempt(
        "a daemon that outlives it",
        """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        tried()
        for number in range(3):
            os.close(number)
        os.execv("/bin/sleep", ["sleep", world["daemon_argument"]])
    os._exit(0)
os.wait()
""",
    ),
    Attempt("stopping itself", "tried(); os.kill(os.getpid(), signal.SIGSTOP)", ends="worked for more than", seconds=3),
    Attempt(
        "sleeping for ever, deaf to signals",
        """
tried()
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
time.sleep(10 ** 6)
""",
        ends="worked for more than",
        seconds=3,
    ),
    Attempt("an exit in the middle", "tried(); os._exit(3)"),
    Attempt("a crash", "tried(); ctypes.string_at(0)"),
)

OUTPUT = (
    Attempt("output without end", 'tried()\nwhile True: print("y" * 1000)', ends="said more than"),
    Attempt("errors without end", 'tried()\nwhile True: print("y" * 1000, file=sys.stderr)', ends="said more than"),
    Attempt("one line without end", 'tried()\nwhile True: os.write(1, b"y" * 65536)', ends="said more than"),
    Attempt(
        "input put into the terminal",
        """
import fcntl
for number in range(3):
    refused(lambda: fcntl.ioctl(number, 0x5412, b"x"))
refused(lambda: os.open("/dev/tty", os.O_RDWR))
tried()
""",
    ),
)

FILES = (
    Attempt(
        "symbolic links out of the scratch folder",
        """
netrc = world["home"] + "/.netrc"
for number, target in enumerate(("/etc/shadow", netrc, "/proc/1/root/etc/shadow", "../../etc/shadow")):
    os.symlink(target, f"link-{number}")
    reads(f"link-{number}")
tried()
""",
    ),
    Attempt(
        "hard links to what is not its own",
        """
for target in ("/usr/bin/env", "data/table.csv"):
    refused(lambda: os.link(target, "linked"))
tried()
""",
    ),
    Attempt(
        "another root, and mounts",
        """
refused(lambda: os.chroot("/scratch"), errno.EPERM)
flags = 4096
assert libc.mount(b"/scratch", b"/usr", None, flags, None) == -1 or escaped("mount")
assert libc.mount(None, b"/", None, 32, None) == -1 or escaped("remount")
assert libc.umount2(b"/scratch/data/table.csv", 2) == -1 or escaped("umount")
tried()
""",
    ),
    Attempt(
        "namespaces of its own",
        """
for flag in (0x10000000, 0x00020000, 0x40000000, 0x20000000, 0x02000000):
    assert libc.unshare(flag) == -1 or escaped(hex(flag))
clone = 56 if os.uname().machine == "x86_64" else 220
refused(lambda: system_call(clone, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0))
refused(lambda: system_call(435, 0, 0), errno.ENOSYS)
tried()
""",
    ),
    Attempt(
        "another user",
        """
for call in (os.setuid, os.setgid, os.seteuid):
    refused(lambda: call(0), errno.EPERM, errno.EINVAL)
refused(lambda: os.setgroups([0]))
assert os.getuid() == 1000 and os.geteuid() == 1000
for program in ("su", "mount", "passwd", "newgrp"):
    for folder in ("/bin", "/usr/bin"):
        path = f"{folder}/{program}"
        if os.path.exists(path) and os.fork() == 0:
            line = f"{path} </dev/null >/dev/null 2>&1; test $(id -u) = 1000 || echo ESCAPED"
            os.execv("/bin/sh", ["sh", "-c", line])
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
assert status["NoNewPrivs"].strip() == "1"
tried()
""",
    ),
    Attempt(
        "writing into the system and into Python",
        """
for folder in ("/", "/usr", "/usr/bin", "/etc", "/dev", "/root", "/home", *world["python"]):
    refused(lambda: open(f"{folder}/ftx-was-here", "w"))
    refused(lambda: os.chmod(folder, 0o777))
tried()
""",
    ),
    Attempt(
        "writing into the benchmark",
        """
refused(lambda: open("data/table.csv", "a"))
refused(lambda: os.truncate("data/table.csv", 0))
refused(lambda: os.unlink("data/table.csv"))
refused(lambda: os.rename("data", "elsewhere"))
refused(lambda: os.symlink("/scratch/own.csv", "data/own.csv"))
refused(lambda: os.chmod("data/table.csv", 0o777))
tried()
""",
    ),
    Attempt(
        "settings of the kernel",
        """
refused(lambda: put("/proc/sys/kernel/core_pattern", b"|/scratch/x"))
refused(lambda: put("/proc/sys/kernel/hostname", b"elsewhere"))
refused(lambda: put("/proc/sysrq-trigger", b"h"))
refused(lambda: put("/proc/self/oom_score_adj", b"-1000"))
tried()
""",
    ),
    Attempt(
        "higher limits",
        """
import resource
for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_NOFILE"):
    limit = getattr(resource, name)
    assert resource.getrlimit(limit)[1] != resource.RLIM_INFINITY
    try:
        escaped(resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)))
    except ValueError:
        pass
tried()
""",
    ),
    Attempt(
        "hiding from the supervisor, kernel keys and other doors",
        """
assert libc.prctl(4, 0, 0, 0, 0) == -1 or escaped("undumpable")
numbers = (248, 321, 298, 323, 425, 304) if os.uname().machine == "x86_64" else (217, 280, 241, 282, 425, 265)
for number in numbers:
    refused(lambda: system_call(number, 0, 0, 0, 0, 0), errno.EPERM)
tried()
""",
    ),
)

ATTEMPTS = (*NETWORK, *RESOURCES, *READING, *PROCESSES, *OUTPUT, *FILES)
