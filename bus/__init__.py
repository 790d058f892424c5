"""busbar: an event bus in one process that speaks Amazon EventBridge's API."""

__version__ = "0.1.0"
