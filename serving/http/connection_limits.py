"""How many HTTP connections a server has at once, and which one gives way to a new one."""

from __future__ import annotations

import ipaddress
import os
import resource
from collections import Counter
from enum import Enum
from typing import Protocol

# files that connections leave to everything else: journal, database, a new bundle, what is being
# accepted
_SPARE_FILES = 128
_FEWEST = 8  # connections, however few files the process may open


class Phase(Enum):
    """What a connection waits for."""

    HEAD = "a request"
    IDLE = "the next request"
    BODY = "a body"
    REQUEST = "its answer to begin"
    ANSWER = "its caller to take the answer"
    LINGER = "the end of what was answered already"


# phases whose connections give way to a new one, in this order
_GIVES_WAY = (Phase.HEAD, Phase.LINGER, Phase.IDLE, Phase.BODY, Phase.ANSWER)


class Connection(Protocol):
    """What is known here of a connection; see `serving.http.connections.GuardedProtocol`.

    Attributes:
        phase: what it waits for.
        address: the address under which it is counted.
    """

    phase: Phase
    address: str

    def abort(self, why: str) -> None:
        """Close it now."""


class Connections:
    """All connections of one server: at most `most`, and at most `most_of_one` from one address.

    A connection that is one too many takes the place of the one that has waited longest for its
    caller: to ask, to send a body, to take an answer. Where every connection waits for the server,
    the new one is closed.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self.most = most
        self.most_of_one = most_of_one
        self._addresses: Counter[str] = Counter()
        # in each phase, the connection that has waited longest comes first
        self._by_phase: dict[Phase, dict[Connection, None]] = {phase: {} for phase in Phase}

    def __len__(self) -> int:
        return self._addresses.total()

    def add(self, connection: Connection) -> None:
        """Count a new connection, or close it where no other gives way."""
        address = connection.address
        if self._addresses[address] >= self.most_of_one and not self._close_one(address):
            connection.abort("its address has too many connections")
            return
        if len(self) >= self.most and not self._close_one():
            connection.abort("too many connections")
            return
        self._addresses[address] += 1
        self._by_phase[connection.phase][connection] = None

    def remove(self, connection: Connection) -> None:
        """Count a connection no longer; one that is not counted is left alone."""
        counted = self._by_phase[connection.phase]
        if connection not in counted:
            return
        del counted[connection]
        self._addresses[connection.address] -= 1
        if not self._addresses[connection.address]:
            del self._addresses[connection.address]

    def move(self, connection: Connection, phase: Phase) -> None:
        """Note that a connection waits for something else from now on."""
        counted = self._by_phase[connection.phase]
        if connection in counted:
            del counted[connection]
            self._by_phase[phase][connection] = None

    def _close_one(self, address: str | None = None) -> bool:
        """Make room; returns whether there was a connection (of the address) that could be
        closed.
        """
        for phase in _GIVES_WAY:
            for connection in self._by_phase[phase]:
                if address is None or connection.address == address:
                    self.remove(connection)
                    connection.abort("another connection took its place")
                    return True
        return False


def fit_open_files(most: int) -> int:
    """At most so many connections at once, and fewer where few files may be open: accepting a
    connection must not fail for want of files.

    HTTP and gRPC each get half of the files that the process may still open and that nothing else
    needs.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return most
    open_files = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    free = allowed - len(os.listdir(open_files))
    return min(most, max(_FEWEST, (free - _SPARE_FILES) // 2))


def counted_address(host: str) -> str:
    """The address under which a caller's connections are counted: of IPv6 the network of 64 bits,
    since one caller has all of it.

    >>> counted_address("::ffff:10.0.0.1"), counted_address("2001:db8::1")
    ('10.0.0.1', '2001:db8::/64')
    """
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
