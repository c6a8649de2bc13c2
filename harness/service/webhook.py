"""Tells an address of each violation, once: what is told is noted, and what could not be told is tried again."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import requests

from harness.run_folder import write_json
from harness.service.entries import Entry
from harness.service.index import OWN

TIMEOUT_S = 10.0
#: Waits between attempts; the last one for ever after.
WAITS_S = (1.0, 5.0, 30.0, 300.0)


class Webhook:
    """`add` a violation; a thread of its own posts it. Without a `url` it only notes that the violation is known."""

    def __init__(self, store: Path, url: str | None, tell: Callable[[str], None]) -> None:
        self._file, self._url, self._tell = store / OWN / "told.json", url, tell
        self.begins = not self._file.exists()
        self._known: set[str] = set()
        self._waiting: dict[str, dict[str, Any]] = {}
        self.failures = self.delivered = 0
        self._lock, self._news, self._stop = threading.Lock(), threading.Event(), threading.Event()
        if not self.begins:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                saved = json.loads(self._file.read_bytes())
                self._known, self._waiting = set(saved["known"]), dict(saved["waiting"])
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        if url:
            self._thread.start()
            self._news.set()

    def begun(self, names: Iterable[str]) -> None:
        """At the service's first start: these violations were there before."""
        if self.begins:
            self._known |= set(names)
            self._save()

    def known(self) -> set[str]:
        """Of which somebody was told already, or will be."""
        with self._lock:
            return set(self._known)

    def add(self, entry: Entry) -> None:
        """Raises OSError where that cannot be noted; it is told all the same."""
        with self._lock:
            if entry.name in self._known:
                return
            self._known.add(entry.name)
            if self._url:
                self._waiting[entry.name] = {"event": "violation", **entry.as_dict()}
            self._news.set()  # whether that can be noted or not
            self._save()

    def _save(self) -> None:
        write_json(self._file, {"known": sorted(self._known), "waiting": self._waiting})

    def _work(self) -> None:
        failed = 0
        while not self._stop.is_set():
            self._news.wait()
            self._news.clear()
            while not self._stop.is_set() and (told := next(iter(self._waiting.items()), None)):
                try:
                    # Not redirected: a token in the address must not be shown to another host.
                    answer = requests.post(str(self._url), json=told[1], timeout=TIMEOUT_S, allow_redirects=False)
                    answer.raise_for_status()
                    if answer.status_code >= 300:
                        raise requests.HTTPError(f"it answered {answer.status_code}")
                except requests.RequestException as error:
                    self.failures += 1
                    if not failed:
                        self._tell(f"serve: the violation of {told[0]} could not be told: {error}; it tries again")
                    self._stop.wait(WAITS_S[min(failed, len(WAITS_S) - 1)])
                    failed += 1
                    continue
                failed = 0
                self.delivered += 1
                with self._lock:
                    del self._waiting[told[0]]
                    try:
                        self._save()
                    except OSError as error:  # a full disk: the thread must be there for the next one
                        self._tell(f"serve: that {told[0]} was told could not be noted: {error}")

    def waiting(self) -> int:
        return len(self._waiting)

    def stop(self) -> None:
        self._stop.set()
        self._news.set()
        deadline = time.monotonic() + TIMEOUT_S
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))
