"""Where events come from beside PutEvents: partners, services of your own, CloudTrail's log files.

`ServiceSource` is for adapters outside the bus's process; the modules beside it are the bus's side.
"""

from bus.sources.client import BusAway, EventRefused, ServiceSource, SourceError

__all__ = ["BusAway", "EventRefused", "ServiceSource", "SourceError"]
