"""Torch's device "emulated": the host's memory that refuses what CUDA refuses, to find a wrong device without a GPU."""

import contextlib
import fcntl
import hashlib
import os
import subprocess
import types
from pathlib import Path

import torch

NAME = "emulated"
SOURCE, TORCH = Path(__file__).with_suffix(".cpp"), Path(torch.__file__).parent


def build(compiler: str, folder: Path) -> Path:
    """The compiled library in `folder`, made by the first process that asks."""
    made = folder / f"{hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]}.so"
    part = made.with_suffix(f".{os.getpid()}")
    command = [compiler, "-std=c++20", "-O0", "-w", "-shared", "-fPIC", str(SOURCE), "-o", str(part)]
    command += [f"-I{TORCH / 'include'}", f"-I{TORCH / 'include/torch/csrc/api/include'}"]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            subprocess.run([*command, f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10"], check=True)
            part.rename(made)
    return made


def load(compiler: str, folder: Path) -> str:
    """Make torch know the device, once in a process; returns its name."""
    torch.utils.rename_privateuse1_backend(NAME)
    torch.ops.load_library(str(build(compiler, folder)))
    module = types.ModuleType(f"torch.{NAME}")
    for name, fact in {"is_available": True, "current_device": 0, "device_count": 1, "_is_in_bad_fork": False}.items():
        setattr(module, name, lambda fact=fact: fact)
    module.device = lambda device: contextlib.nullcontext()
    module.manual_seed_all = lambda seed: torch.ops.emulated.seed(int(seed) % 2**63)
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()
    return NAME
