"""The arm on the simulated robot: how even its commands are, how well it follows, how soon faults stop it; and how much
rings and queues in shared memory pass.

Robot and arm run in real time where that is allowed; elsewhere other work on the machine shows in the figures.
"""

import argparse
import statistics
import time

import numpy as np
from arm_faults import FAULTS, PROGRAM_FAULTS, Fault, moving_arm, moving_arm_of_a_program
from motion_log import MotionLog

from diffusion_policy.common.pose_trajectory_interpolator import PoseTrajectoryInterpolator
from diffusion_policy.real_world.rtde_interpolation_controller import RTDEInterpolationController
from diffusion_policy.real_world.sim.ur_controller import SimulatedUR
from diffusion_policy.shared_memory.shared_memory_queue import SharedMemoryQueue
from diffusion_policy.shared_memory.shared_memory_ring_buffer import SharedMemoryRingBuffer


def servo_loop(e_series: bool, servo_time_constant: float | None, seconds: float) -> None:
    """A circle of 5 cm at 0.5 Hz (0.157 m/s), its waypoints sent at 10 Hz, 0.2 s ahead."""
    frequency = 500 if e_series else 125
    log = MotionLog(int(frequency * (seconds + 5)))
    with (
        SimulatedUR(e_series=e_series, servo_time_constant=servo_time_constant, on_tick=log) as robot,
        RTDEInterpolationController(None, robot.host, frequency, soft_real_time=True) as controller,
    ):
        start = controller.get_state()["ActualTCPPose"]
        begin, monotonic_begin = time.time() + 0.2, time.monotonic() + 0.2
        offsets = np.arange(0, seconds, 0.1)
        angles = np.pi * offsets
        circle = start + 0.05 * np.column_stack([np.cos(angles) - 1, np.sin(angles), *[np.zeros(len(angles))] * 4])
        for offset, pose in zip(offsets, circle, strict=True):
            time.sleep(max(begin + offset - 0.2 - time.time(), 0))
            controller.schedule_waypoint(pose, begin + offset)
        arrivals = robot.state()["command_times"]
    periods = np.diff(arrivals[arrivals > monotonic_begin])
    times, poses = log.read(monotonic_begin + 1)
    inside = times < monotonic_begin + offsets[-1] - 0.2
    wanted = PoseTrajectoryInterpolator(monotonic_begin + offsets, circle)
    lags = np.arange(0, 0.3, 0.002)
    errors = [_rms(poses[inside, :3] - wanted(times[inside] - lag)[:, :3]) for lag in lags]
    best = int(np.argmin(errors))
    lag = "lookahead_time" if servo_time_constant is None else f"{servo_time_constant} s"
    milliseconds = 1e3 * np.array([np.median(periods), periods.std(), np.quantile(periods, 0.99), periods.max()])
    print(f"  {'UR5e' if e_series else 'UR5'}, {frequency} Hz, an arm that lags by {lag}: {1 / periods.mean():.2f} Hz,")
    print("    period {:.3f} ms, std {:.3f}, p99 {:.2f}, max {:.2f};".format(*milliseconds), end=" ")
    print(f"it follows {1e3 * lags[best]:.0f} ms late within {1e3 * errors[best]:.2f} mm rms", flush=True)


def _rms(differences: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum(differences**2, axis=1))))


def throughput(seconds: float = 1.0) -> None:
    """In one process: what the calls cost."""
    state = {f"vector{i}": np.zeros(6) for i in range(8)} | {"timestamp": 0.0}
    image = {"color": np.ones((720, 1280, 3), np.uint8), "timestamp": 0.0}
    for name, item, k in (("robot state (9 entries, 392 bytes)", state, 32), ("image 1280x720x3 (2.8 MB)", image, 2)):
        ring = SharedMemoryRingBuffer.create_from_examples(None, item, k, 60, 1e-3)
        queue = SharedMemoryQueue.create_from_examples(None, item, 4)
        ring._leave_readers_time = lambda number, wait: None  # as fast as it can
        out, out_k = ring._allocate_empty(), ring._allocate_empty(k)
        put = _rate(lambda ring=ring, item=item: ring.put(item), seconds)
        for _ in range(k):
            ring.put(item)
        get = _rate(lambda ring=ring, out=out: ring.get(out), seconds)
        get_k = _rate(lambda ring=ring, out_k=out_k, k=k: ring.get_last_k(k, out_k), seconds)

        def through(queue: SharedMemoryQueue = queue, item: dict = item, out: dict = out) -> None:
            queue.put(item)
            queue.get(out)

        print(
            f"  {name}: ring put {put:,.0f}, get {get:,.0f}, get_last_k({k}) {get_k:,.0f} a second; "
            f"queue put and get {_rate(through, seconds):,.0f} a second"
        )


def _rate(call: object, seconds: float) -> float:
    start, n = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        call()  # type: ignore[operator]
        n += 1
    return n / (time.perf_counter() - start)


def stopping(rounds: int) -> None:
    for faults, rig_of in ((FAULTS, moving_arm), (PROGRAM_FAULTS, moving_arm_of_a_program)):
        for name, fault in faults.items():
            measured = []
            for _ in range(rounds):
                with rig_of() as rig:
                    measured.append(_stop(rig, fault))
            seconds, metres = zip(*measured, strict=True)
            print(
                f"  {name:<40} {1e3 * statistics.median(seconds):>5.0f} ms (at most {1e3 * max(seconds):.0f}), "
                f"{1e3 * statistics.median(metres):>3.0f} mm (at most {1e3 * max(metres):.0f})",
                flush=True,
            )


def _stop(rig: object, fault: Fault) -> tuple[float, float]:
    since = time.monotonic()
    fault.inject(rig)  # type: ignore[arg-type]
    time.sleep(1.0)
    return rig.stopping(since)  # type: ignore[attr-defined,no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of each servo loop")
    parser.add_argument("--rounds", type=int, default=5, help="of each fault")
    args = parser.parse_args()
    print("Servo loop: commands as they come in at the robot, and the way of the tool")
    servo_loop(e_series=False, servo_time_constant=0, seconds=args.seconds)
    servo_loop(e_series=False, servo_time_constant=None, seconds=args.seconds)
    servo_loop(e_series=True, servo_time_constant=0, seconds=args.seconds)
    print("Shared memory, one process")
    throughput()
    print(f"Until the tool rests (slower than 1 mm/s), from 0.2 m/s; median of {args.rounds}")
    stopping(args.rounds)


if __name__ == "__main__":
    main()
