"""Runs on a node: join its standard input and output with a TCP connection that the node opens."""

import os
import select
import socket
import sys

CONNECT_S = 10.0
BLOCK = 1 << 16
# Before the reason when nobody takes the connection; what ends one that stood is told by the two who spoke over it.
NOT_CONNECTED = "not connected: "


def everything(data: bytes) -> None:
    """Write all of it to the standard output; one write may take less."""
    while data:
        data = data[os.write(1, data) :]


def relay(address: str, port: int) -> None:
    """Carry bytes both ways until one side ends; ends the program with the reason when nobody takes the connection."""
    try:
        way = socket.create_connection((address, port), timeout=CONNECT_S)
    except OSError as error:
        sys.exit(NOT_CONNECTED + (error.strerror or str(error)))
    way.settimeout(None)
    far = way.fileno()
    while True:
        ready, _, _ = select.select([0, far], [], [])
        if 0 in ready:
            data = os.read(0, BLOCK)
            if not data:
                return
            way.sendall(data)
        if far in ready:
            data = way.recv(BLOCK)
            if not data:
                return
            everything(data)


if __name__ == "__main__":
    relay(sys.argv[1], int(sys.argv[2]))
