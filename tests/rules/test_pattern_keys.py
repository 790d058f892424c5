from __future__ import annotations

from typing import Any

import pytest

from rules.pattern import Pattern
from rules.pattern_keys import OPEN, pattern_keys


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ('{"source":["shop"]}', {"events:source": ["shop"]}),
        ('{"source":["shop","bank","shop"]}', {"events:source": ["shop", "bank"]}),
        ('{"source":[{"exactly":"shop"}]}', {"events:source": ["shop"]}),
        ('{"source":["10.0.0.1"]}', {"events:source": ["10.0.0.1"]}),
        ('{"source":[{"prefix":"sh"}]}', {"events:source": [OPEN]}),
        ('{"source":["shop",{"suffix":"p"}]}', {"events:source": ["shop", OPEN]}),
        ('{"source":[{"anything-but":"shop"}]}', {"events:source": [OPEN]}),
        ('{"source":[{"exists":false}]}', {"events:source": [OPEN]}),
        ('{"source":[null]}', {"events:source": [OPEN]}),
        ('{"detail-type":["T"]}', {"events:detail-type": ["T"]}),
        ('{"account":["1"]}', {}),
        ('{"$or":[{"source":["a"]},{"source":["b"]}]}', {"events:source": ["a", "b"]}),
        ('{"$or":[{"source":["a"]},{"account":["1"]}]}', {"events:source": ["a", OPEN]}),
        (
            '{"detail":{"service":["S"],"eventTypeCode":["C"],"userIdentity":{"principalId":["P"]}}}',
            {
                "events:detail.service": ["S"],
                "events:detail.eventtypecode": ["C"],
                "events:detail.useridentity.principalid": ["P"],
            },
        ),
    ],
)
def test_keys(pattern: str, keys: dict[str, Any]) -> None:
    assert pattern_keys(Pattern.parse(pattern)) == keys
