"""Serve the shop on this machine alone: ``PORT=8000 python -m shop``, with NODES by several processes."""

from __future__ import annotations

import os
import socket
import sys


def main() -> None:
    """Listen first, so that a taken port is known at once and the address that is printed answers."""
    port = os.environ.get("PORT") or "8000"
    try:
        listener = socket.create_server(("127.0.0.1", int(port)))
    except (OSError, OverflowError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        sys.exit(f"error: cannot listen on port {port} of 127.0.0.1: {reason}; choose another one: PORT=8001 make demo")
    with listener:
        if nodes := os.environ.get("NODES"):
            serve_nodes(listener, nodes)
        else:
            serve(listener)


def serve(listener: socket.socket) -> None:
    """Serve in this process."""
    import uvicorn

    from shop.app import app

    address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    print(f"The shop: {address} (PORT changes the port, Ctrl-C ends it)", flush=True)
    uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=3)).run(sockets=[listener])


def serve_nodes(listener: socket.socket, nodes: str) -> None:
    """Serve by several processes, each of which is this program without NODES."""
    from shop import nodes as several

    try:
        several.serve(listener, nodes)
    except several.NodesError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
