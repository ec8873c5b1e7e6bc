"""The engine without Dockyard: one number of streams a line on standard input, tokens a second on standard output."""

from __future__ import annotations

import json
import sys
import threading
import time

import xllamacpp


def main() -> None:
    path, context, parallel, threads, body = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.kv_unified = int(context), int(parallel), True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print("ready", flush=True)
    for line in sys.stdin:
        print(run(server, json.loads(body), int(line)), flush=True)


def run(server: xllamacpp.Server, body: dict[str, object], streams: int) -> float:
    tokens = [0] * streams

    def one(place: int) -> None:
        def take(chunk: str) -> bool:
            tokens[place] += '"content":"' in chunk
            return False

        server.handle_chat_completions(json.dumps(body), take)

    workers = [threading.Thread(target=one, args=(place,)) for place in range(streams)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(tokens) / (time.monotonic() - began)


main()
