"""Serve the shop on this machine alone: ``PORT=8000 python -m shop``."""

from __future__ import annotations

import os
import socket
import sys

import uvicorn


def main() -> None:
    """Listen first, so that a taken port is known at once and the address that is printed answers."""
    port = os.environ.get("PORT") or "8000"
    try:
        listener = socket.create_server(("127.0.0.1", int(port)))
    except (OSError, OverflowError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        sys.exit(f"error: cannot listen on port {port} of 127.0.0.1: {reason}; choose another one: PORT=8001 make demo")
    with listener:
        from shop.app import app

        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        print(f"The shop: {address} (PORT changes the port, Ctrl-C ends it)", flush=True)
        uvicorn.Server(uvicorn.Config(app)).run(sockets=[listener])


if __name__ == "__main__":
    main()
