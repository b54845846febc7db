#!/usr/bin/python3
"""What sharing a file, or a folder of files, costs between two processes on one machine, unshaped, beside curl over TLS from nginx.

LAB_BIN=$PWD/dragonload ./loopback.py [--files 1] [--mib 1024] [--rounds 5]

Each round curl fetches the content from nginx (TLS 1.3, all files over one connection) and
`dragonload get` gets it from a holder; curl goes first in every other round. Timed is from the start of the
process until curl ends, and until the line `saved`, when every byte is checked, synced and has its
name. CPU is that of both sides. Prints the rates and their ratio. What came is compared with the original.
"""
import argparse, filecmp, mmap, os, pathlib, resource, shutil, statistics, subprocess, sys, time

WORK = pathlib.Path(os.environ.get("LAB_DIR", "/tmp/lab")) / "loopback"
HTTPS, MEMBER = 8443, 4110
TICK = os.sysconf("SC_CLK_TCK")

NGINX = """worker_processes auto; pid {w}/nginx.pid; error_log {w}/nginx.log;
events {{ worker_connections 64; }}
http {{ access_log off; sendfile on; client_body_temp_path {w}; proxy_temp_path {w}; fastcgi_temp_path {w}; uwsgi_temp_path {w}; scgi_temp_path {w};
  server {{ listen 127.0.0.1:{port} ssl; root {w}; ssl_certificate {w}/cert.pem; ssl_certificate_key {w}/key.pem; ssl_protocols TLSv1.3;
    keepalive_requests 1000000; }} }}
"""


def make(folder, files, mib):
    """What is shared, and the files of it below its folder."""
    folder.mkdir(parents=True)
    if files == 1:
        name = pathlib.Path("file.bin")
        (folder / name).write_bytes(os.urandom(mib * 2**20))
        return folder / name, [name]
    size = mib * 2**20 // files
    for i in range(files):
        path = folder / f"{i // 100:03d}" / f"file-{i:05d}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(size))
    return folder, [p.relative_to(folder) for p in sorted(folder.rglob("*.bin"))]


def family(pid):
    """A process and its children."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return [pid] + [int(c) for t in tasks for c in t.read_text().split()]


def cpu(pid):
    total = 0
    for p in family(pid):
        fields = pathlib.Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def timed(argv, server, until, **kw):
    """Seconds until the process ends, or says a line that begins with until; and the CPU of both sides."""
    before, mine = cpu(server), resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    p = subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)
    took = None
    for line in p.stdout:
        if until and line.startswith(until):
            took = time.monotonic() - start
    errors = p.stderr.read()
    if p.wait() or until and took is None:
        sys.exit(f"{argv[0]} ended with {p.returncode}:\n{errors}")
    took = took or time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, cpu(server) - before + after.ru_utime + after.ru_stime - mine.ru_utime - mine.ru_stime


def same(names, a, b):
    for name in names:
        if not filecmp.cmp(a / name, b / name, shallow=False):
            sys.exit(f"{b / name} differs")


def reserve(size):
    """Has the kernel keep so much free memory until what this returns is closed. In a virtual machine free memory goes
    back to the host within seconds, a MiB or more at a time, and the first touch of it afterwards costs more than
    all that is measured, for one side or the other as chance has it. So one page of sixteen stays taken."""
    page, hold = mmap.PAGESIZE, 16
    m = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    m.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, size, page):
        m[at] = 1
    for at in range(0, size, hold * page):
        m.madvise(mmap.MADV_DONTNEED, at + page, (hold - 1) * page)
    return m


class Sides:
    """An nginx and a holder that serve the same file or folder."""

    def __init__(self, folder, shared, names):
        self.folder, self.shared, self.names, self.procs, self.count = folder, shared, names, [], 0
        self.binary = os.environ.get("LAB_BIN", "dragonload")

    def env(self, who):
        config = WORK / who / "config.toml"
        config.parent.mkdir(exist_ok=True)
        config.touch()
        return dict(os.environ, DRAGONLOAD_STATE_DIR=str(WORK / who / "state"), DRAGONLOAD_CONFIG=str(config))

    def ours(self, who, *argv):
        return subprocess.run([self.binary, *argv], env=self.env(who), check=True, text=True, stdout=subprocess.PIPE).stdout

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def start(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", WORK / "key.pem", "-out", WORK / "cert.pem"], check=True, stderr=subprocess.DEVNULL)
        (WORK / "nginx.conf").write_text(NGINX.format(w=WORK, port=HTTPS))
        self.nginx = self.spawn(["nginx", "-e", WORK / "nginx.log", "-c", WORK / "nginx.conf", "-g", "daemon off;"])
        invite = self.ours("holder", "room", "create", "lab", "--advertise", f"127.0.0.1:{MEMBER}").strip()
        self.holder = self.spawn([self.binary, "up", "--listen", f"127.0.0.1:{MEMBER}", "--no-discovery"], env=self.env("holder"), stdout=subprocess.PIPE, text=True)
        if not self.holder.stdout.readline().startswith("ready"):
            sys.exit("the holder is not ready")
        self.ours("getter", "room", "join", "--wait", "10s", invite)
        self.ours("holder", "share", "--room", "lab", str(self.shared))
        return self

    def spawn(self, argv, **kw):
        p = subprocess.Popen([str(a) for a in argv], **kw)
        self.procs.append(p)
        return p

    def __exit__(self, *exc):
        for p in self.procs:
            p.terminate()
        for p in self.procs:
            p.wait()

    def out(self):
        self.count += 1
        return WORK / f"out-{self.count}"

    def drop(self, out):
        """Removes what came, many small files not before the end: ext4 does not use an inode again for some seconds,
        and who makes a file meanwhile pays for the search past all of them."""
        if len(self.names) <= 2000:
            shutil.rmtree(out)

    def curl(self):
        out = self.out()
        (WORK / "urls").write_text("".join(f'url = "https://127.0.0.1:{HTTPS}/{self.folder.name}/{n}"\noutput = "{out / n}"\n' for n in self.names))
        took = timed(["curl", "-sf", "--http1.1", "--cacert", WORK / "cert.pem", "--create-dirs", "-K", WORK / "urls"], self.nginx.pid, None)
        same(self.names, self.folder, out)
        self.drop(out)
        return took

    def get(self):
        out = self.out()
        out.mkdir()
        took = timed([self.binary, "get", "--room", "lab", "--no-discovery", "--listen", "127.0.0.1:0", "-q", "-d", out, self.shared.name], self.holder.pid, "saved ", env=self.env("getter"))
        same(self.names, self.folder, out / self.shared.name if self.shared == self.folder else out)
        self.drop(out)
        return took


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, value in (("files", 1), ("mib", 1024), ("rounds", 5)):
        p.add_argument(f"--{flag}", type=int, default=value)
    o = p.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    folder = WORK / "shared"
    shared, names = make(folder, o.files, o.mib)
    took = {"curl": [], "ours": []}
    with reserve((3 * o.mib + 256) << 20), Sides(folder, shared, names) as sides:
        ways = [("curl", sides.curl), ("ours", sides.get)]
        for k in range(o.rounds):
            os.sync()  # what the round before has written is not for this one to wait for
            for name, way in ways if k % 2 == 0 else reversed(ways):
                took[name].append(way())
            print(f"round {k + 1}: " + ", ".join(f"{n} {t[-1][0]:.2f} s, CPU {t[-1][1]:.2f} s" for n, t in took.items()), flush=True)
    middle = {n: statistics.median(seconds for seconds, _ in t) for n, t in took.items()}
    print(f"medians of {o.rounds}: curl {middle['curl']:.2f} s, ours {middle['ours']:.2f} s, "
          f"{o.files / middle['ours']:.0f} files/s: {middle['curl'] / middle['ours']:.2f} of what curl reaches")
    shutil.rmtree(WORK)


main()
