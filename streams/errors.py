"""The one tree of exceptions. Each leaf says who must act.

ColdstreamError
├── PoisonError        this record can never be applied: its producer must mend it (it is buried as a dead letter)
├── RetryableError     a neighbour is away or slow: nobody must act, the batch is held and tried again
│   ├── IndexUnavailableError    the index (Qdrant, or the disk under Edge)
│   ├── BrokerUnavailableError   the broker did not take what was sent
│   └── EncoderFailedError       the encoder fails on every text
├── AbandonedError     the batch in hand is no longer ours (rebalance, stop, too old): its new owner reads it again
└── FatalError         the process must end: an operator must do what the message says
    ├── ConfigurationError       a setting is wrong
    ├── TopicRemadeError         a topic was deleted and made anew under our feet
    ├── PartitioningError        topics that must have equal partitions have not
    └── DuplicateMemberError     two processes run under one instance id
"""

from __future__ import annotations

from typing import Final


class ColdstreamError(Exception):
    """Base of every error that Coldstream raises on purpose; its text is one sentence that says what to do."""


class PoisonError(ColdstreamError):
    """A record that can never be applied, whoever tries.

    `reason` is the machine's word for it, one of `REASONS`: the value of the dead letter's header `reason` and of a
    metric's label.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        if reason not in REASONS:
            raise ValueError(f"unknown dead-letter reason {reason!r}")
        self.reason = reason


REASONS: Final = (
    "encoding",  # not UTF-8, not JSON, nested too deep
    "schema",  # JSON, but not of the topic's shape
    "key",  # null key, or a key that is not the id in the value
    "time",  # a timestamp more than a day ahead of the record's own time, or not a time at all
    "version",  # a schema version that this release does not know
    "size",  # larger than the configured limit
    "processing",  # valid, but applying or embedding or ranking it failed
)
"""Every reason why a record can become a dead letter."""


class RetryableError(ColdstreamError):
    """A neighbour is away; the same call may succeed later. Nothing was acknowledged."""


class IndexUnavailableError(RetryableError):
    """The index did not answer, or refused (full disk, overload)."""


class BrokerUnavailableError(RetryableError):
    """The broker did not take what was sent."""


class EncoderFailedError(RetryableError):
    """The encoder fails even on a harmless text: not a record's fault."""


class AbandonedError(ColdstreamError):
    """The batch in hand was given up unacknowledged; `why` is rebalance, stop or age."""

    def __init__(self, why: str) -> None:
        super().__init__(f"batch abandoned unacknowledged: {why}")
        self.why = why


class FatalError(ColdstreamError):
    """The process cannot go on; it exits non-zero with this sentence."""


class ConfigurationError(FatalError):
    """A setting is missing, malformed or contradicts another one."""


class TopicRemadeError(FatalError):
    """A topic was made anew: offsets in the index are ahead of it, or name other records."""


class PartitioningError(FatalError):
    """Topics that one worker must own together do not have equal numbers of partitions."""


class DuplicateMemberError(FatalError):
    """Another process is running under the same instance id."""
