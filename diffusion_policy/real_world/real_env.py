"""A robot arm and cameras as an environment that also records what happens in it."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.managers import SharedMemoryManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.cameras.frame_source import CameraError, FrameSource
from diffusion_policy.real_world.cameras.multi_camera import MultiCamera
from diffusion_policy.real_world.cameras.realsense_source import RealSenseSource, connected_serials
from diffusion_policy.real_world.cameras.recording_thread import RecordingReport
from diffusion_policy.real_world.env_devices import make_cameras, make_ur_robot
from diffusion_policy.real_world.episode_recorder import EpisodeRecorder
from diffusion_policy.real_world.episode_videos import EpisodeVideos
from diffusion_policy.real_world.motion_limits import MotionLimits
from diffusion_policy.real_world.observations import (
    Arrays,
    aligned_observation,
    frames_of_an_observation,
    renamed_states,
)
from diffusion_policy.real_world.robot import Robot
from diffusion_policy.real_world.start_stop import StartStop

DEFAULT_OBS_KEY_MAP = {
    # robot
    "ActualTCPPose": "robot_eef_pose",
    "ActualTCPSpeed": "robot_eef_pose_vel",
    "ActualQ": "robot_joint",
    "ActualQd": "robot_joint_vel",
    # timestamps
    "step_idx": "step_idx",
    "timestamp": "timestamp",
}
START_TIMEOUT = 10.0  # s until there are enough frames for an observation


@dataclass
class SavedEpisode:
    """What became of an episode.

    Attributes:
        number: of the episode in the recordings.
        n_steps: that were saved; without any, nothing was.
        videos: what became of each camera's frames, where it is known.
    """

    number: int
    n_steps: int
    videos: list[RecordingReport] = field(default_factory=list)


class RealEnv(StartStop):
    """Observes with cameras and a robot, executes poses at the times they are due, and records episodes.

    Args:
        output_dir: folder of recordings, which episodes are added to; its parent must be there.
        robot_ip: address of the robot.
        frequency: of steps (Hz), at most `video_capture_fps`.
        n_obs_steps: steps To of an observation.
        obs_image_resolution: width and height (px) of observed images.
        max_obs_buffer_size: frames that are kept for observations.
        camera_serial_numbers: RealSense cameras; None for all that are connected.
        obs_key_map: entries of the robot's state that are observed, and what they are called.
        obs_float32: images are float32 in [0, 1] instead of bytes.
        max_pos_speed: of the tool along an axis (m/s).
        max_rot_speed: the same around one (rad/s).
        tcp_offset: from the flange to the tool's tip (m).
        init_joints: move the arm to the joint angles of demonstrations first.
        video_capture_fps: of cameras (Hz).
        video_capture_resolution: of cameras, width and height (px).
        record_raw_video: record what cameras see; else what is observed, at `frequency`.
        thread_per_video: threads of each encoder.
        video_crf: quality of videos, from 0 (lossless) to 51.
        enable_multi_cam_vis: show all cameras in a window.
        multi_cam_vis_resolution: of that window, at most.
        shm_manager: not needed.
        camera_sources: cameras of any kind, in the place of RealSense cameras.
        robot: in the place of a UR robot at `robot_ip`.
        motion_limits: accelerations and workspace of the UR robot.
        robot_patience: s without a state of the robot, or without a command to it, after which it is stopped.

    Raises:
        FileNotFoundError: `output_dir` has no parent.
        CameraError: no camera is connected.
        ValueError: an argument does not fit the others.
    """

    def __init__(
        self,
        output_dir: str | Path,
        robot_ip: str,
        frequency: float = 10,
        n_obs_steps: int = 2,
        obs_image_resolution: tuple[int, int] = (640, 480),
        max_obs_buffer_size: int = 30,
        camera_serial_numbers: Sequence[str] | None = None,
        obs_key_map: Mapping[str, str] = DEFAULT_OBS_KEY_MAP,
        obs_float32: bool = False,
        max_pos_speed: float = 0.25,
        max_rot_speed: float = 0.6,
        tcp_offset: float = 0.13,
        init_joints: bool = False,
        video_capture_fps: float = 30,
        video_capture_resolution: tuple[int, int] = (1280, 720),
        record_raw_video: bool = True,
        thread_per_video: int = 2,
        video_crf: int = 21,
        enable_multi_cam_vis: bool = True,
        multi_cam_vis_resolution: tuple[int, int] = (1280, 720),
        shm_manager: SharedMemoryManager | None = None,
        *,
        camera_sources: Sequence[FrameSource] | None = None,
        robot: Robot | None = None,
        motion_limits: MotionLimits | None = None,
        robot_patience: float = 0.2,
    ) -> None:
        if camera_sources is None:
            serials = connected_serials() if camera_serial_numbers is None else camera_serial_numbers
            camera_sources = [RealSenseSource(each, video_capture_resolution, video_capture_fps) for each in serials]
        self.frequency, self.n_obs_steps, self.obs_key_map = frequency, n_obs_steps, dict(obs_key_map)
        self.max_pos_speed, self.max_rot_speed = max_pos_speed, max_rot_speed
        self._n_frames = frames_of_an_observation(camera_sources, frequency, n_obs_steps, max_obs_buffer_size)
        self.recorder = EpisodeRecorder(output_dir, frequency)
        self.cameras, self._visualizer = make_cameras(
            camera_sources,
            observed_size=obs_image_resolution,
            frequency=frequency,
            n_frames=max_obs_buffer_size,
            as_floats=obs_float32,
            record_raw_video=record_raw_video,
            threads_per_video=thread_per_video,
            crf=video_crf,
            view_size=multi_cam_vis_resolution if enable_multi_cam_vis else None,
        )
        self.robot = robot or make_ur_robot(
            robot_ip,
            max_pos_speed,
            max_rot_speed,
            tcp_offset,
            init_joints,
            max_obs_buffer_size,
            motion_limits,
            robot_patience,
        )
        self._videos = EpisodeVideos(self.cameras, camera_sources[0].fps)
        self._last_frame_time = math.inf
        self._is_started = False

    # ---- starting and stopping

    @property
    def realsense(self) -> MultiCamera:
        """The cameras, whatever their kind, as the original calls them."""
        return self.cameras

    @property
    def is_ready(self) -> bool:
        """Whether cameras deliver and the robot takes commands."""
        return self.cameras.is_ready and self.robot.is_ready

    @property
    def is_window_closed(self) -> bool:
        """Whether the operator has closed the window of the cameras."""
        return self._visualizer is not None and self._visualizer.is_closed

    @property
    def fault(self) -> Exception | None:
        """What is wrong with robot or cameras: returned, not raised."""
        return self.robot.fault or self.cameras.fault

    def start(self, wait: bool = True) -> None:
        """Starts the devices; if one does not start, all are stopped, and its error raised."""
        self._is_started = True
        try:
            self.cameras.start(wait=False)
            self.robot.start(wait=False)
            if self._visualizer is not None:
                self._visualizer.start(wait=False)
            if wait:
                self.start_wait()
        except BaseException:
            self.stop()
            raise

    def start_wait(self) -> None:
        """Returns when there can be an observation."""
        self.robot.start_wait()
        self.cameras.start_wait()
        if self._visualizer is not None:
            self._visualizer.start_wait()
        deadline = time.monotonic() + START_TIMEOUT
        while any(camera.ring_buffer.count < self._n_frames for camera in self.cameras.cameras.values()):
            self._raise_fault()
            if time.monotonic() > deadline:
                raise CameraError(f"there were not {self._n_frames} frames of each camera in {START_TIMEOUT} s")
            time.sleep(0.01)

    def stop(self, wait: bool = True) -> None:
        """Stops the arm, saves the episode under way, stops the cameras; whatever of it fails, the rest is done."""
        if not self._is_started:
            return
        with ExitStack() as stack:
            if wait:
                stack.callback(self.stop_wait)
            stack.callback(self.cameras.stop, wait=False)
            if self._visualizer is not None:
                stack.callback(self._visualizer.stop, wait=False)
            stack.callback(self.end_episode)
            stack.callback(self.robot.stop, wait=False)  # callbacks run from the last to the first

    def stop_wait(self) -> None:
        """Returns when all devices' processes have ended."""
        self.robot.stop_wait()
        self.cameras.stop_wait()
        if self._visualizer is not None:
            self._visualizer.stop_wait()

    # ---- seeing and doing

    def get_obs(self) -> Arrays:
        """The last `n_obs_steps` moments: `camera_<i>` `(To, H, W, 3)` RGB, the robot's `(To, ...)`, `timestamp`.

        The robot's states since the last call are recorded, if an episode is.

        Raises:
            RobotFaultError, CameraError: there is a fault.
        """
        self._raise_fault()
        frames = self.cameras.get(self._n_frames)
        states = self._record_states()
        self._last_frame_time = min(float(frame["timestamp"][-1]) for frame in frames.values())
        return aligned_observation(frames, states, self.obs_key_map, self.n_obs_steps, 1 / self.frequency)

    def exec_actions(
        self, actions: ArrayLike, timestamps: Sequence[float] | NDArray[np.float64], stages: ArrayLike | None = None
    ) -> int:
        """Sends the robot poses `(N, 6)` for the times they are due, `(N,)` (s, wall clock); those that are late are
        dropped. What was sent is recorded, if an episode is, with `stages` `(N,)`, 0 by default.

        Returns:
            How many were late.

        Raises:
            ValueError: a pose is refused; the arm holds.
            RobotFaultError: the arm takes no commands.
        """
        poses, times = np.asarray(actions, np.float64), np.asarray(timestamps, np.float64)
        stage_of = np.zeros(len(poses), np.int64) if stages is None else np.asarray(stages, np.int64)
        if not len(poses) == len(times) == len(stage_of):
            given = f"{len(times)} timestamps and {len(stage_of)} stages"
            raise ValueError(f"{len(poses)} actions need as many timestamps and stages, got {given}")
        due = np.flatnonzero(times > time.time())
        sent = 0
        try:
            for pose, when in zip(poses[due], times[due], strict=True):
                self.robot.schedule_waypoint(pose, when)
                sent += 1
        finally:
            done = due[:sent]
            self.recorder.put_actions(poses[done], times[done], stage_of[done])
        return len(poses) - len(due)

    def hold(self) -> None:
        """Stops the arm where it can stop soonest."""
        self.robot.hold()

    def get_robot_state(self) -> dict[str, NDArray[Any]]:
        """The robot's newest state, by the names its driver has for it."""
        return self.robot.get_state()

    # ---- recording

    def start_episode(self, start_time: float | None = None) -> None:
        """Begins to record an episode from `start_time` on (s, wall clock; None for now), ending the one under way."""
        self.end_episode()
        start_time = time.time() if start_time is None else start_time
        folder = self.recorder.start(start_time)
        try:
            self._videos.start(folder, start_time)
        except BaseException:
            self.drop_episode()
            raise

    def end_episode(self) -> SavedEpisode | None:
        """Saves the episode under way; None if there is none. After a camera's fault it ends with its last frame."""
        if not self.recorder.is_recording:
            return None
        self._record_states()
        number, last_time = self.recorder.n_episodes, self._last_frame_time if self.cameras.fault else math.inf
        videos = self._videos.stop()
        return SavedEpisode(number, self.recorder.end(last_time), videos)

    def drop_episode(self) -> int | None:
        """Drops the episode under way, or else the last one, with its videos; returns its number, if there is one."""
        if self.recorder.is_recording:
            self._videos.stop()
        return self.recorder.drop()

    def _record_states(self) -> Arrays:
        states = self.robot.get_all_state()
        self.recorder.put_observations(renamed_states(states, self.obs_key_map), states["robot_receive_timestamp"])
        return states

    def _raise_fault(self) -> None:
        if (fault := self.fault) is not None:
            raise fault
