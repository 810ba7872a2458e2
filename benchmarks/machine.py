"""The machine that a run is made on, in words."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from scrip.embedded_nats import nats_program
from scrip.embedded_postgres import postgres_programs

SYNCS = 200
PAGE = bytes(8_192)
LIBRARIES = ("eventsourcing", "fastapi", "msgspec", "psycopg", "uvicorn", "uvloop")
MICROSECONDS = 1e6


def describe(folder: Path) -> dict[str, str]:
    """Describe the machine, the servers and the libraries; `folder` is on the disk in question."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "Memory": f"{memory:.0f} GiB",
        "System": f"{platform.system()} {platform.release()}",
        "Disk": f"write of 8 KiB and fdatasync: {sync_microseconds(folder):.0f} µs (median)",
        "Load at the start": f"{os.getloadavg()[0]:.1f} (average of a minute)",
        "Python": platform.python_version(),
        "Servers": f"{_says(postgres_programs() / 'postgres')}; {_says(nats_program())}",
        "Libraries": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES),
    }


def sync_microseconds(folder: Path) -> float:
    """Return what it takes to write a page and have it on disk, the median of some."""
    taken = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.seek(0)
            file.write(PAGE)
            (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * MICROSECONDS


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    if about.exists():
        for line in about.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _says(program: Path) -> str:
    done = subprocess.run(
        [str(program), "--version"], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
