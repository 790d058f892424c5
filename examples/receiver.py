"""A webhook to try things with: answers 200 to every POST, and shows what it got.

python -m examples.receiver [PORT [COUNT]]     (port 9000; ends after COUNT events, or with Ctrl-C)
"""

from __future__ import annotations

import json
import sys

from examples.running import Webhook


def main(port: int = 9000, count: int | None = None) -> None:
    with Webhook(port=port) as webhook:
        print(f"receiving on {webhook.url}", flush=True)
        while count is None or count > 0:
            arrived = webhook.next(patience=None)
            print(f"{arrived.path}  {json.dumps(arrived.event)}", flush=True)
            count = None if count is None else count - 1


if __name__ == "__main__":
    try:
        main(*map(int, sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
