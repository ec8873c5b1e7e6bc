"""Runs inside a sandbox that may reach hosts: its loopback port leads to the proxy's Unix socket outside.

``python relay.py SOCKET PORT COMMAND…`` begins to listen, leaves a child that relays, and becomes the command. Run by
its path, by an interpreter that has nothing of Dockyard.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def relay(near: socket.socket, path: str) -> None:
    with near, socket.socket(socket.AF_UNIX) as far:
        with contextlib.suppress(OSError):
            far.connect(path)
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join()


def main(path: str, port: int, command: list[str]) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    if os.fork():
        listener.close()
        os.execvp(command[0], command)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    while True:
        near, _ = listener.accept()
        threading.Thread(target=relay, args=(near, path), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
