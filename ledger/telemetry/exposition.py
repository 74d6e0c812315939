"""Numbers as Prometheus reads them."""

import platform
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from ledger.telemetry.names import BUILD, FAMILIES
from ledger.telemetry.numbers import Numbers, Series

T = TypeVar("T")


def written(numbers: Numbers, version: str, accept: str = "") -> tuple[bytes, str]:
    """The numbers in the format that is accepted, and its media type."""
    numbers.put(BUILD, 1, version, platform.python_version())
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(numbers))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Numbers(Collector):
    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        found = self._numbers
        for name, family in FAMILIES.items():
            if of_it := _of(name, found.spreads):
                histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
                limits = [*map(floatToGoString, family.buckets), "+Inf"]
                for labels, spread in of_it:
                    within = accumulate(spread[:-1])
                    histogram.add_metric(labels, [*zip(limits, within, strict=True)], spread[-1])
                yield histogram
            if counted := _of(name, found.counts):
                counter = CounterMetricFamily(name, family.help, labels=family.labels)
                for labels, value in counted:
                    counter.add_metric(labels, value)
                yield counter
            if standing := _of(name, found.levels):
                gauge = GaugeMetricFamily(name, family.help, labels=family.labels)
                for labels, value in standing:
                    gauge.add_metric(labels, value)
                yield gauge


def _of(name: str, series: Mapping[Series, T]) -> list[tuple[list[str], T]]:
    return [([*labels], value) for (of, *labels), value in sorted(series.items()) if of == name]
