"""The same engine, planned and loaded the same way, called in this process without worker, gateway and HTTP.

One number of streams a line on standard input, tokens a second on standard output.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import cast

import msgspec

from dockyard import engines, hardware, settings
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.types import Chunk, LoadOptions, Message, Request, Sampling


def main() -> None:
    body = msgspec.json.decode(sys.argv[1])
    options = settings.load().settings
    files = model_files(Store.open(options), body["model"])
    machine = hardware.detect()
    engine = cast("engines.IsolatedEngine", engines.choose(files, LoadOptions(), options, machine).engine)
    engine.load(files, engine.plan(files, LoadOptions(), options, machine))
    print("ready", flush=True)
    for line in sys.stdin:
        print(run(engine, body, int(line)), flush=True)
    engine.close()


def run(engine: engines.IsolatedEngine, body: dict[str, object], streams: int) -> float:
    messages = msgspec.convert(body["messages"], tuple[Message, ...])
    sampling = msgspec.convert({k: body[k] for k in ("max_tokens", "temperature", "ignore_eos")}, Sampling)
    tokens = [0] * streams

    def one(place: int) -> None:
        def emit(chunk: Chunk | None) -> bool:
            if chunk is not None and chunk.usage is not None:
                tokens[place] = chunk.usage.completion_tokens
            return False

        engine.generate(Request(id=f"{place}", messages=messages, sampling=sampling), emit)

    workers = [threading.Thread(target=one, args=(place,)) for place in range(streams)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(tokens) / (time.monotonic() - began)


main()
