#!/usr/bin/python3
"""Sharing in the network laboratory: holders share one folder, getters get it by its name.

sudo LAB_BIN=$PWD/dragonload ./share.py [--holders 3] [--getters 5] [--files 2000] [--mib 1024] [--lan 400] [--rounds 3]

Prints for each round the seconds from the start of all getters until the last has the whole
folder, and their ratio to the fluid bound: what a getter's downlink, or all uplinks together,
let through. Files are alike in size; what each getter has is compared with the original.
"""
import argparse, filecmp, os, shutil, statistics, sys, time

import lab as network


def make(folder, files, size):
    for i in range(files):
        path = folder / f"{i // 100:03d}" / f"file-{i:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))


def bound(o):
    """Seconds: every getter receives everything, and holders and getters send."""
    total, rate = o.mib * 2**20, o.lan * 1e6 / 8
    return max(total / rate, o.getters * total / ((o.holders + o.getters) * rate))


def same(a, b):
    c = filecmp.dircmp(a, b)
    if c.left_only or c.right_only or c.funny_files:
        return False
    _, wrong, errors = filecmp.cmpfiles(a, b, c.common_files, shallow=False)
    return not wrong and not errors and all(same(a / d, b / d) for d in c.common_dirs)


def wait(path, word, limit, process):
    until = time.monotonic() + limit
    while time.monotonic() < until:
        if path.exists() and any(line.startswith(word) for line in path.read_text().splitlines()):
            return
        if process.poll() not in (None, 0):
            break
        time.sleep(0.02)
    sys.exit(f"no line {word!r} in {path}:\n{path.read_text() if path.exists() else ''}")


def play(o, folder):
    binary, n = os.environ.get("LAB_BIN", "dragonload"), o.holders + o.getters
    with network.Lab(network.homogeneous(n, 40, o.lan, origin_up=100)) as net:
        for i in range(n):
            shutil.rmtree(net.home(i), ignore_errors=True)

        def do(i, log, *argv):
            return net.spawn(i, [binary, *argv], log=net.home(i) / log, cwd=net.home(i))

        do(0, "invite", "room", "create", "lab", "--advertise", f"{net.lan_ip(0)}:4100").wait()
        invite = (net.home(0) / "invite").read_text().strip()
        for i in range(n):
            if i:
                do(i, "join", "room", "join", "--wait", "20s", invite).wait()
            if i < o.holders:
                wait(net.home(i) / "up", "ready", 20, do(i, "up", "up", "--listen", f"{net.lan_ip(i)}:4100", "--no-discovery"))
        for i in range(o.holders):
            do(i, "share", "share", "--room", "lab", str(folder)).wait()
            wait(net.home(i) / "share", "shared", 1, net.procs[-1])
        start = time.monotonic()
        getters = {i: do(i, "get", "get", "--room", "lab", "--no-discovery", "--listen", f"{net.lan_ip(i)}:4100", "-d", str(net.home(i) / "got"), folder.name)
                   for i in range(o.holders, n)}
        took = {}
        while len(took) < len(getters) and time.monotonic() < start + o.limit:
            for i, process in getters.items():
                log = net.home(i) / "get"
                if i not in took and log.exists() and "\nsaved " in "\n" + log.read_text():
                    took[i] = time.monotonic() - start
                elif process.poll() not in (None, 0):
                    sys.exit(f"getter {i} failed:\n{log.read_text()}")
            time.sleep(0.02)
        right = sum(same(folder, net.home(i) / "got" / folder.name) for i in took)
        if right < len(getters):
            sys.exit(f"{right} of {len(getters)} getters have the folder as it is after {o.limit} s")
        for i in range(n):
            shutil.rmtree(net.home(i), ignore_errors=True)
        return max(took.values())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, value in (("holders", 3), ("getters", 5), ("files", 2000), ("mib", 1024), ("lan", 400), ("rounds", 3), ("limit", 300)):
        p.add_argument(f"--{flag}", type=int, default=value)
    o = p.parse_args()
    folder = network.WORK / "shared"
    shutil.rmtree(folder, ignore_errors=True)
    make(folder, o.files, o.mib * 2**20 // o.files)
    o.mib = sum(f.stat().st_size for f in folder.rglob("*.bin")) / 2**20
    ratios = []
    for k in range(o.rounds):
        seconds = play(o, folder)
        ratios.append(seconds / bound(o))
        print(f"round {k + 1}: {seconds:.2f} s, ratio {ratios[-1]:.3f}, {o.files / seconds:.0f} files/s", flush=True)
    print(f"median of {o.rounds}: ratio {statistics.median(ratios):.3f}, bound {bound(o):.2f} s")
    shutil.rmtree(folder, ignore_errors=True)


main()
