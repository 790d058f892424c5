"""Where one HTTP/1.1 message with a Content-Length ends; all that a load generator and a sink need to know of HTTP."""

from __future__ import annotations

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


def message_end(data: bytes) -> int | None:
    """The offset just past the first message in ``data``; None while some of it is missing."""
    head = data.find(_END)
    if head < 0:
        return None
    end = head + len(_END) + content_length(data[:head])
    return end if end <= len(data) else None


def content_length(head: bytes) -> int:
    """The Content-Length among the header lines; 0 when there is none."""
    lowered = head.lower()
    start = lowered.find(_LENGTH)
    if start < 0:
        return 0
    start += len(_LENGTH)
    end = lowered.find(b"\r\n", start)
    return int(lowered[start:] if end < 0 else lowered[start:end])
