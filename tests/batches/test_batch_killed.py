"""The server is killed and stopped at random moments: every line comes out once; what ran in the background is told."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
from batch_help import begin, ended, jsonl, line, rows

LINES = 150


@contextmanager
def started(home: Path) -> Iterator[tuple[subprocess.Popen[str], openai.OpenAI]]:
    from serving import command

    arguments = command({"home": str(home), "port": 0, "log_level": "error", "echo_tokens_per_second": 40.0})
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url
        try:
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
                yield process, client
        finally:
            process.kill()


def test_every_line_once_though_the_server_is_killed_and_stopped(tmp_path: Path) -> None:
    with started(tmp_path) as (process, client):
        batch = begin(client, jsonl([line(str(number)) for number in range(LINES)]))
        deadline = time.monotonic() + 20
        while not client.batches.retrieve(batch.id).request_counts.completed:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        hanging = client.responses.create(model="echo", input=" ".join("x" * 3000), background=True)
        process.kill()
    with started(tmp_path) as (process, client):
        before = client.batches.retrieve(batch.id).request_counts.completed
        deadline = time.monotonic() + 20
        while client.batches.retrieve(batch.id).request_counts.completed == before < LINES:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(random.uniform(0, 0.3))
        process.terminate()
        assert process.wait(20) == 0
    with started(tmp_path) as (process, client):
        lost = client.responses.retrieve(hanging.id)
        assert lost.status == "failed"
        assert lost.error is not None
        assert "ended before" in lost.error.message
        done = ended(client, client.batches.retrieve(batch.id))
        assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", LINES, 0)
        told = rows(client, done.output_file_id)
        assert [one["custom_id"] for one in told] == [str(number) for number in range(LINES)]
        assert all(one["response"]["status_code"] == 200 for one in told)
        process.terminate()
        assert process.wait(20) == 0
