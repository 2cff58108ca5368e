"""One client of benchmarks/serving.py, in a process of its own as on a robot: prints the times of its requests."""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from diffusion_policy.serving.client import PolicyClient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri")
    parser.add_argument(
        "--images", type=Path, required=True, help=".npz of the observation; 1-D arrays of bytes are JPEGs"
    )
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=5)
    args = parser.parse_args()
    with np.load(args.images) as archive:
        arrays = {key: archive[key] for key in archive.files}
    obs = {
        key: array.tobytes() if array.ndim == 1 and array.dtype == np.uint8 else array for key, array in arrays.items()
    }
    with PolicyClient(args.uri) as client:
        for _ in range(args.warmup):
            client.infer(obs)
        print("ready", flush=True)
        input()
        times, beside = [], []
        for _ in range(args.requests):
            start = time.perf_counter()
            answer = client.infer(obs)
            times.append(1e3 * (time.perf_counter() - start))
            beside.append(times[-1] - answer["server_timing"]["infer_ms"])
    print(json.dumps({"ms": times, "beside_ms": beside, "n_actions": len(answer["actions"])}))


if __name__ == "__main__":
    main()
