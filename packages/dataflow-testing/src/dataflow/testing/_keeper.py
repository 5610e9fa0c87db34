"""Keeps a PostgreSQL server running for as long as its owner lives: a script that `dataflow.testing.server` runs.

Being another process, in a session that Ctrl-C does not reach, it outlives an owner that is killed. The end of its
standard input, or a new parent, tells it to stop the server and to remove the temporary folder. It runs with ``-I -S``
and knows only the standard library.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
"""How to end the server, more rudely each time (fast shutdown, immediate shutdown), and seconds to wait for it."""


def main(text: str) -> None:
    """Run the server that a plan describes until it is no longer wanted.

    Standard output says "ready" once it accepts connections, and ends with the server. Standard input takes the words
    "immediate" (end it as if it crashed), "keep" (do not remove the folder) and "end".

    Args:
        text: the plan as JSON: ``owner`` (process id), ``account`` (uid, gid, or null), ``initdb`` and ``postgres``
            (command lines), ``fresh`` (empty folder that initdb fills, or null), ``data`` (what it is called when
            full), ``log`` (file), ``remove`` (folder), ``seconds`` (for the start).
    """
    plan = json.loads(text)
    words: set[bytes] = set()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: words.add(b"end"))
    try:
        with open(plan["log"], "ab", buffering=0) as log:
            _serve(plan, words, log)
        os.close(1)
        while _wanted(plan, words, 0.5):  # the owner may look at the data, and start another server on them
            pass
    finally:
        if b"keep" not in words:
            shutil.rmtree(plan["remove"], ignore_errors=True)


def _serve(plan: Mapping[str, Any], words: set[bytes], log: IO[bytes]) -> None:
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": plan["remove"]}
    if plan["account"]:
        uid, gid = plan["account"]
        options |= {"user": uid, "group": gid, "extra_groups": []}
    deadline = time.monotonic() + plan["seconds"]
    if plan["fresh"]:
        try:
            done = subprocess.run(plan["initdb"], check=False, timeout=plan["seconds"], **options)  # noqa: S603
            if done.returncode:
                return
            Path(plan["fresh"]).rename(plan["data"])  # so that a data folder is complete or not there
        finally:
            shutil.rmtree(plan["fresh"], ignore_errors=True)
    options["preexec_fn"] = _follow_the_keeper()  # safe: this process has no other threads
    server = subprocess.Popen(plan["postgres"], **options)  # noqa: S603
    try:
        ready = False
        while server.poll() is None and _wanted(plan, words, 0.5 if ready else 0.01):
            if not ready and _is_ready(Path(plan["data"]), server.pid):
                ready = True
                with contextlib.suppress(OSError):
                    os.write(1, b"ready\n")
            elif not ready and time.monotonic() > deadline:
                return
    finally:
        if server.poll() is None:
            _end(server, STEPS[1:] if b"immediate" in words else STEPS)


def _follow_the_keeper() -> Any:
    """Return what lets a child of ours end when we are killed ourselves, where the system can do that (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, pr_set_pdeathsig = ctypes.CDLL(None).prctl, 1
    return lambda: prctl(pr_set_pdeathsig, signal.SIGINT)


def _wanted(plan: Mapping[str, Any], words: set[bytes], seconds: float) -> bool:
    """Wait for a word of the owner; return whether it lives and wants the server."""
    if b"end" not in words and select.select([0], [], [], seconds)[0]:
        words.update((os.read(0, 1000) or b"end").split())
    return b"end" not in words and os.getppid() == plan["owner"]


def _is_ready(data: Path, pid: int) -> bool:
    """Return whether the server wrote that it accepts connections: the last line of its ``postmaster.pid``."""
    with contextlib.suppress(OSError):
        lines = (data / "postmaster.pid").read_text().splitlines()
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].startswith("ready")
    return False


def _end(server: "subprocess.Popen[bytes]", steps: tuple[tuple[signal.Signals, float], ...]) -> None:
    for number, seconds in steps:
        server.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(seconds)
            return


if __name__ == "__main__":
    main(sys.argv[1])
