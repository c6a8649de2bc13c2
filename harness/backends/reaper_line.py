"""The harness's end of the line to the reaper of its containers (see reaper.py)."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
from typing import IO

from harness.backends import reaper
from harness.errors import HarnessFault

_End = IO[bytes] | socket.SocketIO


class ReaperLine:
    """Use `started`, or `joined`. Raises HarnessFault where there is no reaper."""

    def __init__(self, pid: int, to: _End, from_: _End, process: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self._to, self._from, self._process = to, from_, process
        if self._from.readline() != reaper.READY:
            raise HarnessFault("the reaper of containers did not start; without it a killed harness would leave them")

    @classmethod
    def started(cls, owner: str) -> ReaperLine:
        """To one that is started now."""
        process = subprocess.Popen(
            [sys.executable, "-P", reaper.__file__, owner, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        return cls(process.pid, process.stdin, process.stdout, process)

    @classmethod
    def joined(cls, owner: str) -> ReaperLine:
        """To the one that let an owner's containers outlive their harness."""
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.connect(reaper.door(owner))
        except OSError as error:
            line.close()
            raise HarnessFault("its containers have ended: their reaper is there no more") from error
        with line:  # what is made of it keeps it open
            pid, _, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return cls(pid, line.makefile("wb", buffering=0), line.makefile("rb", buffering=0), None)

    def outlive(self, seconds: float, ryuks_port: int) -> None:
        """See harness.backends.base.Children. Raises HarnessFault."""
        try:
            self._to.write(f"outlive {seconds:g} {ryuks_port}\n".encode())
            answer = self._from.readline()
        except (OSError, ValueError) as error:
            raise HarnessFault("the reaper of containers has gone") from error
        if answer != reaper.READY:
            why = answer.decode().strip() or "it has gone"
            raise HarnessFault(f"the reaper of containers cannot outlive this harness: {why}")

    def close(self, all_done: bool) -> None:
        """`all_done`: everything was removed; else it sweeps on until nothing comes any more."""
        with contextlib.suppress(OSError, ValueError):
            if all_done:
                self._to.write(reaper.ALL_DONE)
        for end in (self._to, self._from):
            with contextlib.suppress(OSError):
                end.close()

    def wait(self, seconds: float) -> None:
        """Until it has ended."""
        if self._process is not None:
            self._process.wait(seconds)
            return
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                select.select([descriptor], [], [], seconds)
            finally:
                os.close(descriptor)
