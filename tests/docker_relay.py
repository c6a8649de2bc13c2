"""A way to the Docker daemon that a test can cut, and mend again."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from pathlib import Path

from harness.backends import docker


class Relay:
    """A Unix socket that passes everything on to the daemon's. Use it as a context manager.

    To whoever comes in by it, a cut is a daemon that has died: no connection is left, and none is accepted.
    """

    def __init__(self) -> None:
        self._daemon = os.environ.get("DOCKER_HOST", docker.DEFAULT_HOST).removeprefix("unix://")
        self._folder = tempfile.TemporaryDirectory(prefix="relay-")  # its path must fit into a socket's name
        self._path = Path(self._folder.name) / "docker.sock"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None

    @property
    def address(self) -> str:
        return f"unix://{self._path}"

    def __enter__(self) -> Relay:
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._folder.cleanup()

    def mend(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self._path))
        listener.listen(128)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
            connections, self._open = self._open, set()
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
            self._path.unlink()
        for each in connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                ours, _ = listener.accept()
            except OSError:
                return
            theirs = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            theirs.connect(self._daemon)
            with self._lock:
                if self._listener is not listener:  # cut since
                    ours.close()
                    theirs.close()
                    return
                self._open |= {ours, theirs}
            back = threading.Thread(target=self._pass_on, args=(theirs, ours), daemon=True)
            back.start()
            threading.Thread(target=self._pass_all, args=(ours, theirs, back), daemon=True).start()

    def _pass_all(self, ours: socket.socket, theirs: socket.socket, back: threading.Thread) -> None:
        self._pass_on(ours, theirs)
        back.join()
        with self._lock:
            self._open -= {ours, theirs}
        ours.close()
        theirs.close()

    @staticmethod
    def _pass_on(source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                to.sendall(data)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)
