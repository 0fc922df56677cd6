"""Addresses that a server listens on."""

from __future__ import annotations

import errno
import socket

from tasteloop.errors import TasteloopError


def address(host: str, port: int) -> str:
    """A host with its port, as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(host: str, port: int, option: str) -> socket.socket:
    """Bind a socket, which does not listen yet.

    Raises:
        TasteloopError: the port is taken (another `option` helps), or the address is not this
            machine's.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family = addresses[0][0]
        # asyncio sets TCP_NODELAY only where the protocol is named. Without it an answer waits
        # 40 ms for an ACK.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise port_is_taken(host, port, option) from None
        raise TasteloopError(
            f"cannot listen on {address(host, port)}: {error.strerror or error}"
        ) from None
    return listener


def port_is_taken(host: str, port: int, option: str) -> TasteloopError:
    """The error for a port that another program listens on."""
    return TasteloopError(
        f"{address(host, port)} is taken by another program; choose another {option} (0: any free one)"
    )
