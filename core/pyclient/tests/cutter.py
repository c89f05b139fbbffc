"""A proxy in front of a redis that cuts the connection at the n-th request, before it or before its answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path


class Cutter:
    """Listens on a unix socket of its own. Unarmed, it only passes on."""

    def __init__(self, folder: Path, target: Path) -> None:
        self.path = folder / "cutter.sock"
        self._target = str(target)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._lock = threading.Lock()
        self._left: int | None = None
        self._forward_first = False
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, nth: int, *, forward_first: bool) -> None:
        """Cuts once, at the n-th request from now on: before redis gets it, or when redis has got it."""
        with self._lock:
            self._left, self._forward_first, self.cuts = nth, forward_first, 0

    def disarm(self) -> None:
        """Cuts no more: fewer requests came than it was armed for."""
        with self._lock:
            self._left = None

    def close(self) -> None:
        # shutdown wakes the thread that accepts; close alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answers, args=(server, client), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            # The clients of these tests wait for an answer before they send again: what is read at once is one request.
            while request := client.recv(1 << 20):
                cut = self._is_nth()
                if not cut or self._forward_first:
                    server.sendall(request)
                if cut:
                    break
        _hang_up(client, server)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while answer := server.recv(1 << 20):
                client.sendall(answer)
        _hang_up(client, server)

    def _is_nth(self) -> bool:
        with self._lock:
            if self._left is None:
                return False
            self._left -= 1
            if self._left > 0:
                return False
            self._left, self.cuts = None, 1
            return True


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
