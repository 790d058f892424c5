"""Where events come from beside PutEvents: partners, the services of an operator, CloudTrail's log files."""
