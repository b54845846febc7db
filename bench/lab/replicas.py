#!/usr/bin/python3
"""Trackers on an etcd cluster in the network laboratory, while parts of both are killed.

sudo LAB_BIN=$PWD/dragonload ./replicas.py [--members 3] [--wan 8] [--mib 80] [--rounds 3] [--settle 5] [--away 8]

Three hosts have a server of one etcd cluster and a replica of the tracker each; members get a file
from the origin through lines of --wan Mbit/s. After --settle seconds each:
  1. the replica that owns the pool is killed with -9;
  2. the server of etcd that leads is killed with -9, and a machine joins the room meanwhile;
  3. the second server is killed: etcd has no majority for --away seconds. What would have to be
     durable is tried, and a member that joined before begins with the file;
  4. both servers are started again.
Prints a line of JSON for each round (seconds unless named otherwise):
  owned        from the kill of the owner until another replica owns the pool in etcd
  stood_owner, stood_server, stood_away
               the longest in which no member received a byte, in each part; members tell four times a second
  joined       what the join took while etcd chose another leader
  refused      from the start of a join, a removal and a leaving to their refusal, with etcd away
  back         from the start of the servers until a join succeeds
  copies       of the file that the origin sent
"""
import argparse, base64, concurrent.futures, datetime, hashlib, json, os, shutil, signal, statistics, subprocess, sys, threading, time

import lab as network

BIN = os.environ.get("LAB_BIN", "dragonload")
AWAY = "cannot reach the etcd cluster"


class Failed(Exception):
    pass


def fail(text):
    raise Failed(text)


class Pauses(threading.Thread):
    """Notices that this machine stood still, after which times mean nothing: such a round is played again."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen = False
        self.start()

    def run(self):
        last = time.monotonic()
        while True:
            time.sleep(0.1)
            now = time.monotonic()
            self.seen, last = self.seen or now - last > 1, now


class Site:
    def __init__(self, net, o):
        self.net, self.o, self.servers, self.trackers, self.gets = net, o, {}, {}, {}

    # -- etcd ---------------------------------------------------------------------------------
    def serve(self, i):
        """Starts host i's server of the cluster."""
        ip, cluster = self.net.lan_ip(i), ",".join(f"e{k}=http://{self.net.lan_ip(k)}:2380" for k in range(3))
        self.servers[i] = self.net.spawn(i, [
            "etcd", "--name", f"e{i}", "--data-dir", self.net.home(i) / "etcd", "--logger", "zap", "--log-level", "error",
            "--listen-client-urls", f"http://{ip}:2379", "--advertise-client-urls", f"http://{ip}:2379",
            "--listen-peer-urls", f"http://{ip}:2380", "--initial-advertise-peer-urls", f"http://{ip}:2380",
            "--initial-cluster", cluster], log=self.net.home(i) / "etcd.log")

    def etcd(self, i, call, **body):
        """Asks host i's server; None if it does not answer."""
        out = network.sh("ip", "netns", "exec", self.net.ns(f"n{i}"), "curl", "-sfm", "2", "-d", json.dumps(body),
                         f"http://{self.net.lan_ip(i)}:2379/v3/{call}", check=False).stdout
        return json.loads(out) if out else None

    def leader(self):
        for i in self.servers:
            s = self.etcd(i, "maintenance/status")
            if s and s.get("leader", "0") == s["header"]["member_id"]:
                return i
        fail("etcd has no leader")

    def headless(self):
        """Whether no server of etcd believes in a leader: one that still does takes in what it is told, and
        it may be done once the others are back, whatever was answered."""
        return all((self.etcd(i, "maintenance/status") or {}).get("leader", "0") == "0" for i in self.servers)

    def owner(self):
        """Which replica the pool is worked on by, as etcd says; None if by nobody."""
        for i in self.servers:
            key, end = (base64.b64encode(x).decode() for x in (b"/dragonload/owners/", b"/dragonload/owners0"))
            answer = self.etcd(i, "kv/range", key=key, range_end=end)
            if answer is not None:
                at = [base64.b64decode(kv["value"]).decode().split(":")[0] for kv in answer.get("kvs", [])]
                return next((k for k in range(3) if self.net.lan_ip(k) in at), None)
        return None

    # -- processes ------------------------------------------------------------------------------
    def kill(self, process):
        """kill -9; ip netns exec has become the program itself."""
        process.send_signal(signal.SIGKILL)
        process.wait()

    def do(self, i, log, *argv, limit=30):
        """Runs dragonload on host i to its end; returns its exit code, what it said and the seconds that it took."""
        path, start = self.net.home(i) / log, time.monotonic()
        path.unlink(missing_ok=True)
        try:
            code = self.net.spawn(i, [BIN, *argv], log=path).wait(limit)
        except subprocess.TimeoutExpired as late:
            fail(f"{argv}: {late}\n{path.read_text()}")
        return code, path.read_text().strip(), time.monotonic() - start

    def must(self, i, log, *argv):
        code, said, took = self.do(i, log, *argv)
        if code:
            fail(f"{argv} on host {i} ended with {code}:\n{said}")
        return said, took

    def refused(self, i, log, *argv):
        code, said, took = self.do(i, log, *argv)
        if code != 6 or AWAY not in said:
            fail(f"with etcd away {argv} ended with {code}:\n{said}")
        return took

    def until(self, what, ready, limit=30):
        end = time.monotonic() + limit
        while not ready():
            if time.monotonic() > end:
                fail(what + " has not come in time")
            time.sleep(0.02)

    def track(self, i):
        log, ip = self.net.home(i) / "tracker", self.net.lan_ip(i)
        urls = ",".join(f"http://{self.net.lan_ip(k)}:2379" for k in range(3))
        self.trackers[i] = self.net.spawn(i, [BIN, "tracker", "--listen", f"{ip}:4100", "--no-discovery", "--etcd", urls], log=log)
        self.until(f"replica {i}", lambda: "ready" in log.read_text())

    def get(self, i, url):
        out = self.net.home(i) / "out.bin"
        out.unlink(missing_ok=True)
        self.gets[i] = self.net.spawn(i, [BIN, "get", "--room", "lab", "--json", "--no-discovery", "--listen", f"{self.net.lan_ip(i)}:0", "--linger", "20s", "-o", out, url],
                                      log=self.net.home(i) / "get")

    def events(self, i):
        log = self.net.home(i) / "get"
        lines = log.read_text().splitlines() if log.exists() else []
        for line in lines:
            try:
                e = json.loads(line)
            except ValueError:
                continue
            if isinstance(e, dict) and "event" in e:
                e["at"] = datetime.datetime.fromisoformat(e["time"].replace("Z", "+00:00")).timestamp()
                yield e

    def stood(self, begin, end):
        """The longest time, of one between begin and end (time.time), in which no member received anything."""
        moved = [begin, end]
        for i in self.gets:
            last = -1
            for e in self.events(i):
                if e["event"] == "progress":
                    got = e["origin_bytes"] + e["peer_bytes"]
                    if got > last and begin <= e["at"] <= end:
                        moved.append(e["at"])
                    last = max(last, got)
        moved.sort()
        return max(b - a for a, b in zip(moved, moved[1:]))

    def moving(self):
        return all(any(e["event"] == "progress" and e["peer_bytes"] for e in self.events(i)) for i in self.gets)


def play(o):
    m = [3 + k for k in range(o.members)]
    late, new, newer = 3 + o.members, 4 + o.members, 5 + o.members
    sc = network.homogeneous(6 + o.members, o.wan, 400, origin_up=1000, size_mib=o.mib)
    shutil.rmtree(network.WORK / network.TAG, ignore_errors=True)
    with network.Lab(sc) as net:
        url, s, r = net.start_origin(), Site(net, o), {}
        done = lambda i: any(e["event"] in ("saved", "failed") for e in s.events(i))
        for i in range(3):
            s.serve(i)
        s.until("etcd", lambda: all(s.etcd(i, "kv/range", key="YQ==") is not None for i in range(3)))
        invite, _ = s.must(0, "create", "room", "create", "lab", "--advertise", f"{net.lan_ip(0)}:4100",
                           "--also", f"{net.lan_ip(1)}:4100", "--also", f"{net.lan_ip(2)}:4100")
        for i in range(3):
            s.track(i)
        for i in m + [late]:
            s.must(i, "join", "room", "join", "--no-discovery", invite)
        for i in m:
            s.get(i, url)
        s.until("progress of all members", s.moving)
        time.sleep(o.settle)

        # 1. The owner of the pool.
        first = s.owner()
        if first is None:
            fail("nobody owns the pool")
        start, wall = time.monotonic(), time.time()
        s.kill(s.trackers[first])
        s.until("another owner", lambda: s.owner() not in (None, first))
        r["owned"] = time.monotonic() - start
        time.sleep(o.settle)
        r["stood_owner"] = s.stood(wall, time.time())

        # 2. The leader of etcd, and what was acknowledged before.
        def members():  # number and id of each
            listed, _ = s.must(m[0], "members", "room", "members", "--no-discovery", "lab")
            return {tuple(line.split()[:2]) for line in listed.splitlines()}

        known = members()
        lead, wall = s.leader(), time.time()
        s.kill(s.servers.pop(lead))
        _, r["joined"] = s.must(new, "join", "room", "join", "--no-discovery", "--wait", "10s", invite)
        then = members()
        if not known < then or len(then) != len(known) + 1:
            fail(f"members were {known}, with one more they are {then}")
        time.sleep(o.settle)
        r["stood_server"] = s.stood(wall, time.time())

        # 3. No majority.
        lost, wall, start = next(iter(s.servers)), time.time(), time.monotonic()
        s.kill(s.servers.pop(lost))
        s.until("a cluster without a leader", s.headless)
        here = next(i for i in range(3) if i != first)
        s.get(late, url)
        with concurrent.futures.ThreadPoolExecutor() as at_once:
            tries = [at_once.submit(s.refused, *what) for what in (
                (newer, "join", "room", "join", "--no-discovery", invite),
                (here, "remove", "room", "remove", "lab", next(iter(known))[1]),
                (here, "leave", "room", "leave", "lab"))]
            r["refused"] = max(one.result() for one in tries)
        time.sleep(max(0, o.away - (time.monotonic() - start)))
        r["stood_away"] = s.stood(wall, time.time())
        if any(done(i) for i in m):
            fail("the file came before all had happened: give a larger one")
        if not any(e["event"] == "progress" and e["origin_bytes"] + e["peer_bytes"] for e in s.events(late)):
            fail("who begins with etcd away receives nothing")

        # 4. Back again.
        start = time.monotonic()
        s.serve(lead), s.serve(lost)
        s.must(newer, "join", "room", "join", "--no-discovery", "--wait", "20s", invite)
        r["back"] = time.monotonic() - start
        if not then < members():
            fail(f"members were {then}, with etcd back they are {members()}")
        s.until("every file", lambda: all(done(i) for i in s.gets), o.limit)
        for i in s.gets:
            out = net.home(i) / "out.bin"
            if not out.exists() or hashlib.file_digest(open(out, "rb"), "sha256").hexdigest() != net.sha:
                fail(f"member {i} has another file:\n" + (net.home(i) / "get").read_text()[-2000:])
        net.nginx.send_signal(signal.SIGQUIT)
        time.sleep(0.5)
        r["copies"] = net.origin_bytes()[0] / (o.mib * 2**20)
        r["seconds"] = max(e["at"] for i in s.gets for e in s.events(i) if e["event"] == "saved") - min(e["at"] for i in s.gets for e in s.events(i))
        return {k: round(v, 3) for k, v in r.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, value in (("members", 3), ("wan", 8), ("mib", 128), ("rounds", 3), ("settle", 5), ("away", 8), ("limit", 120)):
        p.add_argument(f"--{flag}", type=float if flag in ("settle", "away") else int, default=value)
    o = p.parse_args()
    rows = []
    pauses, again = Pauses(), 0
    while len(rows) < o.rounds:
        pauses.seen, row, why = False, None, ""
        try:
            row = play(o)
        except Failed as failed:
            why = failed
        if pauses.seen and again < 10:
            again += 1
            print("a round is played again: this machine stood still for more than a second", flush=True)
            continue
        if row is None:
            sys.exit(f"replicas.py: {why}")
        rows.append(row)
        print(f"round {len(rows)}: {json.dumps(row)}", flush=True)
    if o.rounds > 1:
        print(f"median of {o.rounds}: " + json.dumps({k: statistics.median(r[k] for r in rows) for k in rows[0]}))


main()
