"""This machine, as far as it decides how fast an encoder runs and which engines can run it."""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec
from pathlib import Path

_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; nothing where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in first.splitlines())
    }


def processor() -> str:
    """What decides how fast an engine is here: the model's name and the instruction sets that
    engines use.
    """
    about = _cpuinfo()
    flags = set(about.get("flags", "").split())
    name = about.get("model name") or platform.processor() or platform.machine()
    return " ".join([name, *(flag for flag in _FLAGS if flag in flags)])


def has_gpu() -> bool:
    """Whether torch has a GPU; torch is only imported to ask where there is a device."""
    if not Path("/dev/nvidiactl").exists() or find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def has_bf16() -> bool:
    """Whether the processor computes in bf16: elsewhere it is emulated, up to 100 times slower."""
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpuinfo().get("flags", "").split()))


def threads() -> int:
    """Threads of a computation: `OMP_NUM_THREADS`, else the processors that this process may use, a
    container's limit (cgroup v2) included: with more threads than processors it would be stopped in
    every period.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        return count
