"""How fast the rules match, as ratios to decoding the same lines with `orjson.loads`.

    python -m benchmarks.rules [events]

Sixteen rule sets over generated land parcels (about 0.85 KB a line, the shape of the San Francisco parcels that
event-ruler's own benchmark reads), then growth with the number of rules. Every value a rule asks for is planted in the
data a known number of times, and each rule must match exactly those lines. Ratios above 1 are faster than decoding.

With BUSBAR_EVENT_RULER_JAR naming a jar of event-ruler with its dependencies, and `java` (11 or later) on the path, the
same lines and patterns are put to it as well, on one core.
"""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from rules import MatchIndex, Pattern

EVENTS = 50_000
LINES = 213_068
PASSES = 6
SLICE = 100
JAR = "BUSBAR_EVENT_RULER_JAR"

T = -122.41600944012424
A = -122.46471267081272
B = -122.4063085128395
X = -122.42916360922355
Y = 37.729900216217324

_STREET_NAMES = """
    ABERDEEN ACADIA ADAIR AGATE ALBION ALDER ALEMANY ALPINE ALTA ALVARADO ANZA APTOS ARBOR ARGUELLO ARLINGTON
    ARMORY ASH ATHENS AVALON AZTEC BACON BAKER BALBOA BARTLETT BATTERY BEACON BEULAH BLANKEN BORICA BOSWORTH BOWLEY
    BRADFORD BRAZIL BROADWAY BRYANT BUCHANAN BURNETT CABRILLO CAINE CALIFORNIA CAMBON CAPP CARROLL CASTRO CAYUGA
    CHENERY CHURCH CLAY CLEMENT COLE CRESCENT DIAMOND DOLORES DOUGLASS EDDY ELLIS EUCLID EUREKA FELL FILBERT FOLSOM
    FULTON GATES GEARY GEORGIA GIRARD GOUGH GUERRERO HAIGHT HARRISON HAYES HOWARD HYDE IRVING JACKSON JUDAH KANSAS
    KIRKHAM LAGUNA LAKE LARKIN LAWTON LEAVENWORTH LINCOLN LISBON LOMBARD LYON MADRID MARINA MASON MCALLISTER
    MISSION MORAGA MOSCOW NAPLES NOE NORIEGA OAK OCTAVIA ORTEGA PACIFIC PAGE PARIS PIERCE PINE POLK POST POWELL
    PRAGUE QUINTARA RIVERA RUSSIA SACRAMENTO SANCHEZ SANTIAGO SCOTT SHOTWELL STEINER SUTTER TARAVAL TAYLOR TEXAS
    TURK ULLOA UNION VALENCIA VALLEJO
"""
STREETS = _STREET_NAMES.split()
KINDS = ("AVE", "BLVD", "WAY", "DR", "TER", "PL", "LN", "ALY", "CIR", "RD", "PLZ", "CT", None)


def share(count: int, events: int) -> int:
    """How many of `events` lines stand for `count` of the original ones; at least one."""
    return max(1, round(count * events / LINES))


class Parcels:
    """Generated lines, and for each rule how many of them it matches."""

    def __init__(self, events: int) -> None:
        self._random = random.Random(20_260_101)
        self.size = events
        self.lots = self._lots()
        self.streets = self._streets()
        self.kinds = self._some("ST", share(116_386, events), lambda: self._random.choice(KINDS))
        self.numbers = self._some("2000", share(2_453, events), lambda: str(self._random.randint(1, 4999)))
        self.multipolygons = set(self._random.sample(range(events), share(120, events)))
        self.lines = [orjson.dumps(self._event(index)) for index in range(events)]

    def _some(self, value: Any, count: int, other: Callable[[], Any]) -> list[Any]:
        values = [value] * count
        while len(values) < self.size:
            drawn = other()
            if drawn != value:
                values.append(drawn)
        self._random.shuffle(values)
        return values

    def _lots(self) -> list[str]:
        values = ["LINCOLNS"]
        for lot, count in (("1430022", 1), ("2607117", 101), ("0160062", 35), ("7222001", 655), ("3751033A", 1)):
            values += [lot] * share(count, self.size)
        while len(values) < self.size:
            letter = self._random.choice("ABCDEF") if self._random.random() < 0.1 else ""
            values.append(f"{self._random.randrange(10_000):04d}{self._random.randrange(1000):03d}{letter}")
        self._random.shuffle(values)
        return values

    def _streets(self) -> list[str]:
        values = []
        for street, count in (("ACADIA", 1910), ("CRESCENT", 2657), ("LOMBARD", 1758), ("GOUGH", 825), ("ALDER", 131)):
            values += [street] * share(count, self.size)
        values += [self._random.choice(STREETS) for _ in range(self.size - len(values))]
        self._random.shuffle(values)
        return values

    def _event(self, index: int) -> dict[str, Any]:
        points = self._points(index)
        lot = self.lots[index]
        number = self.numbers[index]
        return {
            "type": "Feature",
            "properties": {
                "MAPBLKLOT": lot,
                "BLKLOT": lot,
                "BLOCK_NUM": lot[:4],
                "LOT_NUM": lot[4:],
                "FROM_ST": number,
                "TO_ST": number,
                "STREET": self.streets[index],
                "ST_TYPE": self.kinds[index],
                "ODD_EVEN": "O" if index % 2 else "E",
            },
            "geometry": {
                "type": "MultiPolygon" if index in self.multipolygons else "Polygon",
                "coordinates": points,
                "firstCoordinates": points[0],
            },
        }

    def _points(self, index: int) -> list[dict[str, float]]:
        draw = self._random.random()
        ranges = ((0.55, (5, 5)), (0.75, (6, 8)), (0.87, (9, 15)), (0.985, (16, 48)), (1.0, (41, 150)))
        low, high = next(bounds for limit, bounds in ranges if draw <= limit)
        # The west up to T holds 70 % of the lines, as 148,948 of 213,068 demand.
        west = self._random.random() < 148_948 / LINES
        x = self._random.uniform(-122.514, T) if west else self._random.uniform(T, -122.364)
        y = self._random.uniform(37.708, 37.811)
        points = [self._near(x, y) for _ in range(self._random.randint(low, high) - 1)]
        if index % (self.size // 2) == 1:
            points[0] = {"x": X, "y": Y, "z": 0}
        return [*points, points[0]]

    def _near(self, x: float, y: float) -> dict[str, float]:
        return {"x": x + self._random.uniform(0, 3e-4), "y": y + self._random.uniform(0, 3e-4), "z": 0}


def leaf(path: str, *alternatives: Any) -> dict[str, Any]:
    found: Any = list(alternatives)
    for step in reversed(path.split(".")):
        found = {step: found}
    return found


def both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two patterns in one; objects under the same key are joined."""
    joined = dict(first)
    for key, value in second.items():
        joined[key] = both(joined[key], value) if key in joined else value
    return joined


LOT, STREET, KIND, NUMBER = (f"properties.{name}" for name in ("MAPBLKLOT", "STREET", "ST_TYPE", "FROM_ST"))
GEOMETRY, FIRST_X, FIRST_Z = "geometry.type", "geometry.firstCoordinates.x", "geometry.firstCoordinates.z"
POLYGON, MULTIPOLYGON = leaf(GEOMETRY, "Polygon"), leaf(GEOMETRY, "MultiPolygon")
WILDCARDS = ("143*", "2*0*1*7", "*218", "3*5*2", "LI*NS")


def numeric(path: str, *terms: Any) -> dict[str, Any]:
    return leaf(path, {"numeric": list(terms)})


def each(operator: Callable[[str], Any], path: str, values: Iterable[str]) -> list[dict[str, Any]]:
    return [leaf(path, operator(value)) for value in values]


def anything_but(values: Sequence[Any], form: str = "") -> list[dict[str, Any]]:
    paths = (STREET, STREET, KIND, GEOMETRY, NUMBER)
    return [
        leaf(path, {"anything-but": {form: [value]} if form else [value]})
        for path, value in zip(paths, values, strict=True)
    ]


def swapped(text: str) -> str:
    return text[0].lower() + text[1:].swapcase().title()


def rule_sets() -> dict[str, list[dict[str, Any]]]:
    """The sixteen sets, in the order of event-ruler's benchmark."""
    prefixes, suffixes = ("AC", "BL", "DO", "MA", "CR"), ("ON", "KE", "MAN", "IDGE", "RY")
    exact = each(lambda text: text, LOT, ("1430022", "2607117", "0160062", "7222001", "LINCOLNS"))
    sets = {
        "EXACT": exact,
        "WILDCARD": each(lambda text: {"wildcard": text}, LOT, WILDCARDS),
        "PREFIX": each(lambda text: {"prefix": text}, STREET, prefixes),
        "PREFIX_EQUALS_IGNORE_CASE": each(
            lambda text: {"prefix": {"equals-ignore-case": swapped(text)}}, STREET, prefixes
        ),
        "SUFFIX": each(lambda text: {"suffix": text}, STREET, suffixes),
        "SUFFIX_EQUALS_IGNORE_CASE": each(
            lambda text: {"suffix": {"equals-ignore-case": swapped(text)}}, STREET, suffixes
        ),
        "EQUALS_IGNORE_CASE": [
            *each(lambda text: {"equals-ignore-case": swapped(text)}, STREET, ("ALDER", "PAGE", "LOMBARD", "GOUGH")),
            leaf(KIND, {"equals-ignore-case": "st"}),
        ],
        "NUMERIC": [
            both(POLYGON, numeric(FIRST_X, "=", X)),
            both(MULTIPOLYGON, numeric(FIRST_Z, "=", 0)),
            numeric(FIRST_X, "<", T),
            numeric(FIRST_X, ">", T),
            numeric(FIRST_X, ">", A, "<", B),
        ],
        "ANYTHING_BUT": anything_but(("ACADIA", "CRESCENT", "ST", "Polygon", "2000")),
        "ANYTHING_BUT_IGNORE_CASE": anything_but(
            tuple(map(swapped, ("ACADIA", "CRESCENT", "ST", "Polygon", "2000"))), "equals-ignore-case"
        ),
        "ANYTHING_BUT_PREFIX": anything_but(("ACADI", "CRES", "S", "Poly", "20"), "prefix"),
        "ANYTHING_BUT_SUFFIX": anything_but(("CADIA", "SCENT", "T", "olygon", "00"), "suffix"),
        "ANYTHING_BUT_WILDCARD": each(lambda text: {"anything-but": {"wildcard": text}}, LOT, WILDCARDS),
        "COMPLEX_ARRAYS": [
            both(POLYGON, numeric("geometry.coordinates.x", "=", X)),
            both(MULTIPOLYGON, numeric("geometry.coordinates.y", "=", Y)),
            numeric("geometry.coordinates.x", "<", T),
            numeric("geometry.coordinates.x", ">", T),
            numeric("geometry.coordinates.x", ">", A, "<", B),
        ],
    }
    combined = ("NUMERIC", "EXACT", "PREFIX", "ANYTHING_BUT", "ANYTHING_BUT_IGNORE_CASE")
    combined += ("ANYTHING_BUT_PREFIX", "ANYTHING_BUT_SUFFIX", "ANYTHING_BUT_WILDCARD")
    sets["PARTIAL_COMBO"] = [pattern for name in combined for pattern in sets[name]]
    sets["COMBO"] = sets["PARTIAL_COMBO"] + sets["COMPLEX_ARRAYS"]
    return sets


# Growth with the number of rules


def growth_event(number: int, rules: int) -> dict[str, Any]:
    return {
        "version": "0",
        "id": f"7bf73129-1428-4cd3-a780-{number:012d}",
        "detail-type": "Order Shipped",
        "source": f"shop.svc{number % 50}",
        "account": "123456789012",
        "time": "2026-01-01T00:00:00Z",
        "region": "us-east-1",
        "resources": [f"arn:aws:shop:us-east-1:123456789012:order/{number}"],
        "detail": {
            "tenant": f"tenant-{number % rules}",
            "state": "stopped" if number % 3 else "running",
            "amount": number % 1000,
            "path": f"/img/{number}/photo.png",
            "items": [{"sku": f"sku-{number % 77}", "qty": 1}, {"sku": "gift", "qty": number % 9}],
        },
    }


def mixed_rule(number: int) -> dict[str, Any]:
    tenant, source = f"tenant-{number}", f"shop.svc{number % 50}"
    low = number % 990
    return (
        {"source": [source], "detail": {"tenant": [tenant], "state": ["running"]}},
        {"detail-type": ["Order Shipped"], "detail": {"tenant": [{"prefix": tenant}]}},
        {"source": [source], "detail": {"amount": [{"numeric": [">", low, "<=", low + 5]}], "tenant": [tenant]}},
        {"detail": {"tenant": [{"equals-ignore-case": tenant.upper()}], "state": [{"anything-but": ["failed"]}]}},
        {"source": [f"other.svc{number}"], "detail": {"path": [{"suffix": f"/{number}.png"}]}},
    )[number % 5]


GROWTH: dict[str, tuple[int, Callable[[int], dict[str, Any]]]] = {
    "10,000 exact": (
        10_000,
        lambda number: {"source": [f"shop.svc{number % 50}"], "detail": {"tenant": [f"tenant-{number}"]}},
    ),
    "10,000 exact, one field": (10_000, lambda number: {"detail": {"tenant": [f"tenant-{number}"]}}),
    "10,000 mixed": (10_000, mixed_rule),
    "1,000 wildcards /img/*/p…*.png": (
        1_000,
        lambda number: {"detail": {"path": [{"wildcard": f"/img/*/p{number}*.png"}]}},
    ),
    "1,000 wildcards *x": (1_000, lambda number: {"detail": {"path": [{"wildcard": f"*/{number}/photo.png"}]}}),
}


# Measuring


def rates(works: Sequence[tuple[Callable[[Any], Any], Sequence[Any]]]) -> list[float]:
    """Items a second of each work, the sum of the best times of short slices, behind one pass to warm up.

    In short slices and in turns, so that what else the machine does falls on all of them; the best of some passes,
    because nothing makes a slice too fast. Who comes first finds the items in no cache, so that goes in turns as well.
    """
    slices = [[items[start : start + SLICE] for start in range(0, len(items), SLICE)] for _, items in works]
    best = [[float("inf")] * len(each) for each in slices]
    turns = list(range(len(works)))
    for number in range(PASSES + 1):
        for index in range(max(map(len, slices))):
            for place in turns:
                if index < len(slices[place]):
                    took = _time(works[place][0], slices[place][index])
                    best[place][index] = min(best[place][index], took if number else float("inf"))
        turns.append(turns.pop(0))
    return [len(items) / sum(times) for (_, items), times in zip(works, best, strict=True)]


def _time(work: Callable[[Any], Any], items: Sequence[Any]) -> float:
    begun = time.perf_counter()
    for item in items:
        work(item)
    return time.perf_counter() - begun


def compiled(patterns: Sequence[dict[str, Any]]) -> MatchIndex[int]:
    return MatchIndex({number: Pattern.parse(json.dumps(pattern)) for number, pattern in enumerate(patterns)})


def check(name: str, index: MatchIndex[int], patterns: Sequence[dict[str, Any]], lines: Sequence[bytes]) -> None:
    """Every way of matching finds in a sample what each pattern alone says."""
    alone = [Pattern.parse(json.dumps(pattern)) for pattern in patterns]
    for line in lines:
        event = orjson.loads(line)
        expected = {number for number, pattern in enumerate(alone) if pattern.matches(event)}
        if not set(index.match_json(line)) == set(index.match(event)) == expected:
            raise SystemExit(f"{name}: the index disagrees with the patterns on {line!r}")


def counts(index: MatchIndex[int], rules: int, lines: Sequence[bytes]) -> list[int]:
    matched = Counter(rule for line in lines for rule in index.match_json(line))
    return [matched[rule] for rule in range(rules)]


def planted(parcels: Parcels) -> dict[str, list[int]]:
    """How many lines the rules of some sets match by construction of the data."""

    def tally(values: Iterable[Any], tests: Sequence[Callable[[Any], bool]]) -> list[int]:
        held = Counter(values)
        return [sum(count for value, count in held.items() if test(value)) for test in tests]

    street, lot = parcels.streets, parcels.lots
    prefix = tally(street, [lambda v, p=p: v.startswith(p) for p in ("AC", "BL", "DO", "MA", "CR")])
    suffix = tally(street, [lambda v, p=p: v.endswith(p) for p in ("ON", "KE", "MAN", "IDGE", "RY")])
    but = [
        *tally(street, [lambda v: v != "ACADIA", lambda v: v != "CRESCENT"]),
        *tally(parcels.kinds, [lambda v: v != "ST"]),
        len(parcels.multipolygons),
        *tally(parcels.numbers, [lambda v: v != "2000"]),
    ]
    exact = [lot.count(v) for v in ("1430022", "2607117", "0160062", "7222001", "LINCOLNS")]
    return {
        "EXACT": exact,
        "PREFIX": prefix,
        "PREFIX_EQUALS_IGNORE_CASE": prefix,
        "SUFFIX": suffix,
        "SUFFIX_EQUALS_IGNORE_CASE": suffix,
        "ANYTHING_BUT": but,
        "ANYTHING_BUT_IGNORE_CASE": but,
    }


def event_ruler(patterns: Sequence[dict[str, Any]], lines: Sequence[bytes]) -> float | None:
    """Events a second of event-ruler on the same lines, if it is on this machine."""
    jar, java = os.environ.get(JAR), shutil.which("java")
    if not jar or not java:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, rules, events = (Path(folder, name) for name in ("Race.java", "rules", "events"))
        source.write_text(RACE)
        rules.write_text("\n".join(map(json.dumps, patterns)))
        events.write_bytes(b"\n".join(lines))
        command = [java, "-XX:+UseSerialGC", "-cp", jar, str(source), str(rules), str(events), str(PASSES)]
        pinned = ["taskset", "-c", "0", *command] if shutil.which("taskset") else command
        return float(subprocess.run(pinned, check=True, capture_output=True, text=True).stdout)


RACE = """
import java.nio.file.*; import java.util.*; import software.amazon.event.ruler.Machine;
public class Race {
  public static void main(String[] a) throws Exception {
    Machine machine = new Machine(); int n = 0;
    for (String rule : Files.readAllLines(Paths.get(a[0]))) machine.addRule("r" + n++, rule);
    List<String> events = Files.readAllLines(Paths.get(a[1]));
    int passes = Integer.parseInt(a[2]); double[] rates = new double[passes];
    for (int p = -2; p < passes; p++) {
      long t = System.nanoTime();
      for (String event : events) machine.rulesForJSONEvent(event);
      if (p >= 0) rates[p] = events.size() * 1e9 / (System.nanoTime() - t);
    }
    Arrays.sort(rates); System.out.println(rates[passes - 1]);
  }
}
"""


def report(name: str, patterns: Sequence[dict[str, Any]], lines: Sequence[bytes], known: list[int] | None) -> None:
    begun = time.perf_counter()
    index = compiled(patterns)
    build = time.perf_counter() - begun
    check(name, index, patterns, lines[:: len(lines) // (500 if len(patterns) < 100 else 5)])
    if known is not None and counts(index, len(patterns), lines) != known:
        raise SystemExit(f"{name}: {counts(index, len(patterns), lines)} lines matched instead of {known}")
    decoded = [orjson.loads(line) for line in lines[:20_000]]
    gc.collect()
    gc.freeze()
    floor, text, parsed = rates([(orjson.loads, lines), (index.match_json, lines), (index.match, decoded)])
    java = event_ruler(patterns, lines)
    told = f"{text / java:6.2f}" if java else "     -"
    print(
        f"{name:<31}{len(patterns):>7}{build:>8.2f}{text:>12,.0f}{text / floor:>8.2f}{parsed:>12,.0f}"
        f"{parsed / floor:>8.2f}  {told}",
        flush=True,
    )


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    parcels = Parcels(events)
    size = sum(map(len, parcels.lines)) / events
    print(f"{events:,} lines of {size:.0f} bytes; ratios are to orjson.loads of the same lines in the same run")
    if not os.environ.get(JAR) or not shutil.which("java"):
        print(f"{JAR} or java is missing: the column event-ruler is skipped")
    print(f"{'set':<31}{'rules':>7}{'build s':>8}{'text/s':>12}{'ratio':>8}{'parsed/s':>12}{'ratio':>8}  ruler")
    known = planted(parcels)
    for name, patterns in rule_sets().items():
        report(name, patterns, parcels.lines, known.get(name))
    for name, (rules, make) in GROWTH.items():
        lines = [orjson.dumps(growth_event(number * 7919, rules)) for number in range(20_000)]
        report(name, [make(number) for number in range(rules)], lines, None)


if __name__ == "__main__":
    main()
