"""Processes of the demo and the study."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CODE = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from speechft.workers import start_worker

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=start_worker) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_a_worker_ends_with_the_process_it_works_for(tmp_path):
    """Killed without a chance to say goodbye, it leaves nobody computing on."""
    (tmp_path / "parent.py").write_text(CODE)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if _is_zombie(worker):
            return
        time.sleep(0.2)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker went on")


def _is_zombie(number: int) -> bool:
    """Ended, but nobody asked for its exit status, as in containers without an init."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
