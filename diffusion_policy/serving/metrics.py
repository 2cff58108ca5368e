"""What the server counts, for Prometheus."""

from functools import partial

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
except ImportError as error:
    raise ImportError(
        "the server needs prometheus_client, which is not installed: pip install 'diffusion_policy[serve]'",
        name="prometheus_client",
    ) from error

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Requests, errors, connections, batches and latencies of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry)
        self._requests = counter("policy_requests", "Requests answered, errors included")
        self._errors = counter("policy_errors", "Requests answered by an error", ["kind"])
        self._rejected = counter("policy_rejected_connections", "Connections refused", ["status"])
        self.connections = Gauge("policy_connections", "Clients connected", registry=self._registry)
        self._batch_size = histogram("policy_batch_size", "Clients answered at a time", buckets=SIZES)
        self._infer = histogram("policy_inference_seconds", "Time of a prediction", buckets=SECONDS)
        self._latency = histogram("policy_request_seconds", "From a request to its answer", buckets=SECONDS)

    def request(self, seconds: float, error: str | None) -> None:
        """Counts a request, and its error if it was answered by one: `request`, `policy` or `device`."""
        self._requests.inc()
        self._latency.observe(seconds)
        if error is not None:
            self._errors.labels(error).inc()

    def rejected(self, status: int) -> None:
        """Counts a connection that was refused."""
        self._rejected.labels(str(status)).inc()

    def batch(self, size: int, seconds: float) -> None:
        """Counts a prediction for `size` clients."""
        self._batch_size.observe(size)
        self._infer.observe(seconds)

    def text(self) -> str:
        """All of them in Prometheus' text format."""
        text: str = generate_latest(self._registry).decode()
        return text
