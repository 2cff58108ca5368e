"""Reading of what a runner returned."""

from typing import Any

from diffusion_policy.common.pyav import av


def scores(log: dict[str, Any]) -> dict[str, float]:
    """Its numbers, without the videos."""
    return {key: value for key, value in log.items() if isinstance(value, float)}


def video_sizes(log: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Width, height and number of frames of each video."""
    sizes = {}
    for key, path in _videos(log).items():
        with av.open(path) as container:
            codec = container.streams.video[0].codec_context
            sizes[key] = (codec.width, codec.height, len(list(container.decode(video=0))))
    return sizes


def codecs(log: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Names, profiles and pixel formats of the videos' codecs."""
    found = set()
    for path in _videos(log).values():
        with av.open(path) as container:
            codec = container.streams.video[0].codec_context
            found.add((codec.name, codec.profile, codec.pix_fmt))
    return found


def _videos(log: dict[str, Any]) -> dict[str, str]:
    return {key: value._path for key, value in log.items() if "sim_video" in key}
