"""A small Ray on this machine with replicas of the server, for tests and benchmarks."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from server.settings import Settings
from tests.live_server import free_port


@contextmanager
def small_ray() -> Iterator[str]:
    """Run a Ray of its own, without a dashboard, while the block lasts; yields the base URL of what is deployed."""
    import ray
    from ray import serve

    # Sockets are in there, whose paths may not be long.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        # Otherwise Ray writes a token into the user's home.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(
            num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, _temp_dir=folder, log_to_driver=False
        )
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            yield f"http://127.0.0.1:{port}"
            serve.shutdown()
        finally:
            ray.shutdown()
            shutil.rmtree(folder)


def run_replicas(most: int, *, least: int = 1, **settings: Any) -> None:
    """Deploy so many replicas of the demo model, or more under load, in place of what was deployed before."""
    from ray import serve

    from deploy import ray_serve

    scaling = {
        "min_replicas": least,
        "max_replicas": most,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 0,
        "metrics_interval_s": 0.5,
        "look_back_period_s": 1,
    }
    deployment = ray_serve.deployment(Settings(threads=1, **settings))
    serve.run(deployment.options(ray_actor_options={"num_cpus": 0.5}, autoscaling_config=scaling).bind())


def num_running() -> int:
    """The replicas that serve."""
    from ray import serve

    (deployed,) = serve.status().applications["default"].deployments.values()
    running: int = deployed.replica_states.get("RUNNING", 0)
    return running


def name_in(stream_id: str) -> str:
    """The replica that an id names."""
    _, name, _ = stream_id.split("-")
    return name
