"""Opens a port in the network namespace that this is run in, and gives the socket to whoever started it.

``python listen.py DESCRIPTOR PORT``: the descriptor is a Unix socket. Run by its path, by an interpreter that has
nothing of Dockyard.
"""

from __future__ import annotations

import socket
import sys


def main(descriptor: int, port: int) -> None:
    with socket.socket(fileno=descriptor) as way, socket.create_server(("127.0.0.1", port)) as listener:
        socket.send_fds(way, [b"1"], [listener.fileno()])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
