"""What libtorrent makes of a torrent. The answer is one line of JSON.

load TORRENT            info hashes, files and web seeds
recheck TORRENT FOLDER  how much of it lies in FOLDER, by hashing
fetch TORRENT FOLDER    how much of it came into FOLDER from its web seeds
create PATH TORRENT v2|hybrid
"""
import json
import os
import sys
import time

import libtorrent as lt

DEADLINE = time.monotonic() + 60


def load(path):
    info = lt.torrent_info(path)
    hashes, files = info.info_hashes(), info.files()
    return {
        "v1": str(hashes.v1) if hashes.has_v1() else "",
        "v2": str(hashes.v2) if hashes.has_v2() else "",
        "name": info.name(),
        "piece_length": info.piece_length(),
        "pieces": info.num_pieces(),
        "private": info.priv(),
        "files": [[files.file_path(i), files.file_size(i)] for i in range(files.num_files())
                  if not files.file_flags(i) & lt.file_storage.flag_pad_file],
        "seeds": [seed["url"] for seed in info.web_seeds()],
    }


def run(path, folder, until, begin):
    session = lt.session({
        "listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False,
        "enable_upnp": False, "enable_natpmp": False,
        "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
    })
    handle = session.add_torrent({"ti": lt.torrent_info(path), "save_path": folder})
    begin(handle)
    while time.monotonic() < DEADLINE:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            if isinstance(alert, until):
                status = handle.status()
                return {"done": status.total_wanted_done, "wanted": status.total_wanted, "progress": status.progress}
    return {"progress": handle.status().progress, "error": "time is over"}


def create(path, out, kind):
    files = lt.file_storage()
    lt.add_files(files, path)
    torrent = lt.create_torrent(files, 65536, flags=lt.create_torrent.v2_only if kind == "v2" else 0)
    lt.set_piece_hashes(torrent, os.path.dirname(path))
    with open(out, "wb") as f:
        f.write(lt.bencode(torrent.generate()))
    return load(out)


def main(command, *args):
    if command == "load":
        return load(*args)
    if command == "recheck":
        return run(*args, lt.torrent_checked_alert, lambda handle: handle.force_recheck())
    if command == "fetch":
        return run(*args, lt.torrent_finished_alert, lambda handle: None)
    return create(*args)


print(json.dumps(main(*sys.argv[1:])))
