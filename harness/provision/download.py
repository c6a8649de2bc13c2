"""Downloads that fail fast, are checked, and never leave half a file under the name of a whole one."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

#: Seconds to connect, and seconds without a byte. A host that does not answer is not asked twice in one search.
TIMEOUT_S = (3.0, 20.0)


class Refused(Exception):
    """The download is not to be had; the message says why in a few words."""


class Downloads:
    """All downloads of one search. A host that refused once is refused at once from then on."""

    def __init__(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        self._cancelled = cancelled
        self._refusals: dict[str, str] = {}
        self._lock = threading.Lock()

    def fetch(
        self, url: str, target: Path, sha256: str | None, show: Callable[[float | None], None] = lambda fraction: None
    ) -> str:
        """Writes what is at `url` to `target` and returns its sha256. Raises Refused, also for a wrong checksum."""
        import requests  # 0.1 s that only a download has to pay

        host = urlsplit(url).netloc
        with self._lock:
            if host in self._refusals:
                raise Refused(self._refusals[host])
        part = target.with_name(target.name + ".part")
        digest = hashlib.sha256()
        try:
            with requests.get(url, stream=True, timeout=TIMEOUT_S) as answer:
                if answer.status_code != 200:
                    raise Refused(f"{host} answers {answer.status_code} {answer.reason}".rstrip())
                size, got = int(answer.headers.get("Content-Length", 0)), 0
                with open(part, "wb") as file:
                    for chunk in answer.iter_content(1 << 18):
                        if self._cancelled():
                            raise InterruptedError("the download was cancelled")
                        file.write(chunk)
                        digest.update(chunk)
                        got += len(chunk)
                        show(got / size if size else None)
                if size and got != size:
                    raise Refused(f"{host} sent {got} of {size} bytes")
        except requests.RequestException as error:
            reason = f"{host} cannot be reached ({_short(error)})"
            with self._lock:
                self._refusals[host] = reason
            part.unlink(missing_ok=True)
            raise Refused(reason) from error
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if sha256 is not None and digest.hexdigest() != sha256:
            part.unlink()
            raise Refused(
                f"what {host} sent has the checksum {digest.hexdigest()[:12]}…, not the pinned {sha256[:12]}…"
            )
        part.replace(target)
        return digest.hexdigest()


def _short(error: Exception) -> str:
    """The innermost reason: requests wraps it three times."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        inner = next((a for a in cause.args if isinstance(a, BaseException)), None)
        cause = getattr(cause, "reason", None) if isinstance(getattr(cause, "reason", None), BaseException) else inner
    text = str(seen[-1])
    return text.split(": ", 1)[-1][:120] or type(seen[-1]).__name__
