"""EventBridge's metrics under their own names, counted in plain integers and exposed for Prometheus.

Counting is on the hot path, so a counter is an attribute of a small object that its user keeps;
the library only sees the numbers when someone scrapes. As in EventBridge, a series of a rule
carries RuleName and, off the default bus, EventBusName; a series without labels is the whole.
Account and Region tell scopes apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from bus.scope import Scope

MILLISECOND_BOUNDS = (
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1000,
    2000,
    5000,
    10_000,
    60_000,
    600_000,
    3_600_000,
    86_400_000,
)
BYTE_BOUNDS = (256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576)
MAX_SOURCES = 1000
"""Event sources with a series of their own; the rest count as `other`, so that names cannot fill the memory."""


class Histogram:
    """Counts per bucket, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value) if value > 1 else 0] += times
        self.total += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus wants them."""
        running, rows = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            running += count
            rows.append((bound, float(running)))
        return rows


@dataclass(slots=True)
class RequestCounts:
    """PutEvents as a whole: one sample per request."""

    PutEventsApproximateCallCount: int = 0
    PutEventsApproximateSuccessCount: int = 0
    PutEventsApproximateFailedCount: int = 0
    PutEventsApproximateThrottledCount: int = 0
    PutEventsEntriesCount: int = 0
    PutEventsFailedEntriesCount: int = 0
    InvocationsCreated: int = 0
    DroppedNoSuchBus: int = 0


@dataclass(slots=True)
class PartnerCounts:
    """PutPartnerEvents as a whole, like PutEvents."""

    PutPartnerEventsApproximateCallCount: int = 0
    PutPartnerEventsApproximateSuccessCount: int = 0
    PutPartnerEventsApproximateFailedCount: int = 0
    PutPartnerEventsApproximateThrottledCount: int = 0
    PutPartnerEventsEntriesCount: int = 0
    PutPartnerEventsFailedEntriesCount: int = 0
    DroppedPendingSource: int = 0


@dataclass(slots=True)
class ServiceCounts:
    """Events of services and records of CloudTrail, which have no metrics on AWS."""

    ServiceEventsEntriesCount: int = 0
    ServiceEventsFailedEntriesCount: int = 0
    ServiceEventsDropped: int = 0
    CloudTrailRecordsCount: int = 0
    CloudTrailFailedRecordsCount: int = 0


@dataclass(slots=True)
class RuleCounts:
    """One rule's counters, by EventBridge's names."""

    MatchedEvents: int = 0
    TriggeredRules: int = 0
    Invocations: int = 0
    FailedInvocations: int = 0
    InvocationAttempts: int = 0
    SuccessfulInvocationAttempts: int = 0
    RetryInvocationAttempts: int = 0
    InvocationsSentToDlq: int = 0
    InvocationsFailedToBeSentToDlq: int = 0


@dataclass(slots=True)
class ScheduleCounts:
    """Schedule rules as a whole; the names are busbar's own."""

    ScheduledEvents: int = 0
    MissedSchedules: int = 0


RuleKey = tuple[Scope, str, str]
"""(scope, bus name, rule name)"""

HELP = {
    "PutEventsApproximateCallCount": "PutEvents requests.",
    "PutEventsApproximateSuccessCount": "PutEvents requests answered with 200, whatever became of their entries.",
    "PutEventsApproximateFailedCount": "PutEvents requests refused as a whole.",
    "PutEventsApproximateThrottledCount": "PutEvents requests throttled; busbar never throttles.",
    "PutEventsEntriesCount": "Entries of PutEvents requests.",
    "PutEventsFailedEntriesCount": "Entries that were refused.",
    "InvocationsCreated": "Deliveries created, one per matched rule's target.",
    "DroppedNoSuchBus": "Accepted entries whose bus does not exist (busbar's own).",
    "PutPartnerEventsApproximateCallCount": "PutPartnerEvents requests.",
    "PutPartnerEventsApproximateSuccessCount": "PutPartnerEvents requests answered with 200.",
    "PutPartnerEventsApproximateFailedCount": "PutPartnerEvents requests refused as a whole.",
    "PutPartnerEventsApproximateThrottledCount": "PutPartnerEvents requests throttled; busbar never throttles.",
    "PutPartnerEventsEntriesCount": "Entries of PutPartnerEvents requests.",
    "PutPartnerEventsFailedEntriesCount": "Entries of PutPartnerEvents that were refused.",
    "PutPartnerEventsLatency": "Milliseconds from a PutPartnerEvents request to its answer.",
    "DroppedPendingSource": "Accepted partner events lost because their source was pending (busbar's own).",
    "Events": "Partner events that came to their bus, by source.",
    "ServiceEventsEntriesCount": "Entries of service events (busbar's own).",
    "ServiceEventsFailedEntriesCount": "Entries of service events that were refused (busbar's own).",
    "ServiceEventsDropped": "Best-effort service events dropped under overload (busbar's own).",
    "CloudTrailRecordsCount": "CloudTrail records read (busbar's own).",
    "CloudTrailFailedRecordsCount": "CloudTrail records that are no events (busbar's own).",
    "ScheduledEvents": "Events that schedule rules made (busbar's own).",
    "MissedSchedules": "Instants of schedule rules that passed without an event (busbar's own).",
    "MatchedEvents": "Events that matched a rule; without labels: matched any.",
    "TriggeredRules": "Rules that ran.",
    "Invocations": "Deliveries that ended, well or not.",
    "FailedInvocations": "Deliveries that ended in failure.",
    "InvocationAttempts": "Attempts at targets.",
    "SuccessfulInvocationAttempts": "Attempts that a target took.",
    "RetryInvocationAttempts": "Attempts after the first of a delivery.",
    "InvocationsSentToDlq": "Failed deliveries put in their dead-letter queue.",
    "InvocationsFailedToBeSentToDlq": "Failed deliveries dropped: no dead-letter queue, or it refused.",
    "PutEventsLatency": "Milliseconds from a PutEvents request to its answer.",
    "PutEventsRequestSize": "Bytes of a PutEvents request's entries, as the size rule counts.",
    "IngestionToInvocationStartLatency": "Milliseconds from acceptance to the start of the first attempt.",
    "IngestionToInvocationCompleteLatency": "Milliseconds from acceptance to the end of the first attempt.",
    "IngestionToInvocationSuccessLatency": "Milliseconds from acceptance to the attempt that succeeded.",
}


@dataclass(slots=True, eq=False)
class Metrics(Collector):
    """Every counter of the process."""

    requests: RequestCounts = field(default_factory=RequestCounts)
    partners: PartnerCounts = field(default_factory=PartnerCounts)
    services: ServiceCounts = field(default_factory=ServiceCounts)
    partner_events: dict[str, int] = field(default_factory=dict)
    partner_latency: Histogram = field(default_factory=lambda: Histogram(MILLISECOND_BOUNDS))
    schedules: ScheduleCounts = field(default_factory=ScheduleCounts)
    rules: dict[RuleKey, RuleCounts] = field(default_factory=dict)
    forgotten: RuleCounts = field(default_factory=RuleCounts)
    """What the counters came to that were forgotten; the sums go on with it."""
    sources: dict[str, int] = field(default_factory=dict)
    matched: int = 0
    put_latency: Histogram = field(default_factory=lambda: Histogram(MILLISECOND_BOUNDS))
    put_size: Histogram = field(default_factory=lambda: Histogram(BYTE_BOUNDS))
    start_latency: Histogram = field(default_factory=lambda: Histogram(MILLISECOND_BOUNDS))
    complete_latency: Histogram = field(default_factory=lambda: Histogram(MILLISECOND_BOUNDS))
    success_latency: Histogram = field(default_factory=lambda: Histogram(MILLISECOND_BOUNDS))
    gauges: list[tuple[str, str, Callable[[], float]]] = field(default_factory=list)

    def entries_put(self) -> int:
        """How many entries came in by any way that somebody waits for."""
        return (
            self.requests.PutEventsEntriesCount
            + self.partners.PutPartnerEventsEntriesCount
            + self.services.ServiceEventsEntriesCount
            + self.services.CloudTrailRecordsCount
        )

    def rule(self, scope: Scope, bus: str, rule: str) -> RuleCounts:
        """The counters of a rule; they outlive the rule, as a series does."""
        key = (scope, bus, rule)
        counts = self.rules.get(key)
        if counts is None:
            counts = self.rules[key] = RuleCounts()
        return counts

    def forget(self, scope: Scope, bus: str, rule: str) -> None:
        """Show the counters of a schedule that is gone no more; they are still in the sums."""
        counts = self.rules.pop((scope, bus, rule), None)
        if counts is not None:
            for each in fields(RuleCounts):
                setattr(self.forgotten, each.name, getattr(self.forgotten, each.name) + getattr(counts, each.name))

    def matched_events(self, source: str, number: int = 1) -> None:
        """So many events of a source matched at least one rule each."""
        self.matched += number
        _count(self.sources, source, number)

    def partner_event(self, source: str) -> None:
        """An event of a partner came to its bus."""
        _count(self.partner_events, source)

    def gauge(self, name: str, sentence: str, read: Callable[[], float]) -> None:
        """Expose a number that is read when someone scrapes."""
        self.gauges.append((name, sentence, read))

    def expose(self) -> bytes:
        """The text of ``GET /metrics``."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._request_families()
        yield from self._source_families()
        yield from self._rule_families()
        yield from self._histogram_families()
        for name, sentence, read in self.gauges:
            yield GaugeMetricFamily(name, sentence, value=read())

    def _request_families(self) -> Iterator[Metric]:
        for each in fields(RequestCounts):
            yield CounterMetricFamily(each.name, HELP[each.name], value=getattr(self.requests, each.name))
        for each in fields(ScheduleCounts):
            yield CounterMetricFamily(each.name, HELP[each.name], value=getattr(self.schedules, each.name))

    def _source_families(self) -> Iterator[Metric]:
        for counts in (self.partners, self.services):
            for each in fields(counts):
                yield CounterMetricFamily(each.name, HELP[each.name], value=getattr(counts, each.name))
        family = CounterMetricFamily("Events", HELP["Events"], labels=("EventSourceName",))
        for source, value in self.partner_events.items():
            family.add_metric((source,), value)
        yield family

    def _rule_families(self) -> Iterator[Metric]:
        for each in fields(RuleCounts):
            family = CounterMetricFamily(
                each.name, HELP[each.name], labels=("Account", "Region", "EventBusName", "RuleName", "Source")
            )
            total = getattr(self.forgotten, each.name)
            for (scope, bus, rule), counts in self.rules.items():
                value = getattr(counts, each.name)
                total += value
                family.add_metric((*scope, "" if bus == "default" else bus, rule, ""), value)
            if each.name == "MatchedEvents":
                total = self.matched
                for source, value in self.sources.items():
                    family.add_metric(("", "", "", "", source), value)
            family.add_metric(("", "", "", "", ""), total)
            yield family

    def _histogram_families(self) -> Iterator[Metric]:
        rows = {
            "PutEventsLatency": self.put_latency,
            "PutEventsRequestSize": self.put_size,
            "PutPartnerEventsLatency": self.partner_latency,
            "IngestionToInvocationStartLatency": self.start_latency,
            "IngestionToInvocationCompleteLatency": self.complete_latency,
            "IngestionToInvocationSuccessLatency": self.success_latency,
        }
        for name, histogram in rows.items():
            yield HistogramMetricFamily(name, HELP[name], buckets=histogram.buckets(), sum_value=histogram.total)


def _count(series: dict[str, int], source: str, number: int = 1) -> None:
    """More of a source; beyond a thousand sources the rest is `other`."""
    if source not in series and len(series) >= MAX_SOURCES:
        source = "other"
    series[source] = series.get(source, 0) + number
