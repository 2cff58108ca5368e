"""Image codecs for zarr arrays: those of imagecodecs, in the form that the field's datasets have.

`register_codecs()` makes numcodecs, hence zarr, able to open arrays stored with them.
"""

import logging
from collections.abc import Collection
from typing import Any

import numcodecs
from imagecodecs import numcodecs as _imagecodecs
from imagecodecs.numcodecs import Avif, Jpeg, Lz4f, Png, Qoi, Tiff, Webp
from imagecodecs.numcodecs import Jpegls as JpegLs
from imagecodecs.numcodecs import Jpegxl as JpegXl
from imagecodecs.numcodecs import Jpegxr as JpegXr
from numcodecs.abc import Codec
from numcodecs.registry import codec_registry

__all__ = [
    "Avif",
    "Jpeg",
    "Jpeg2k",
    "JpegLs",
    "JpegXl",
    "JpegXr",
    "Lz4f",
    "Png",
    "Qoi",
    "Tiff",
    "Webp",
    "register_codecs",
]

log = logging.getLogger(__name__)

_NEWER_JPEG2K_OPTIONS = {"planar": None, "mct": True, "squeeze": None}


class Jpeg2k(_imagecodecs.Jpeg2k):
    """JPEG 2000 for chunks of one image `(1, H, W, C)`; lossless unless `level`, in dB of PSNR, is given.

    What it stores in `.zarray` has the options that the field's readers know, and newer ones only where used.
    """

    def __init__(self, level: int | None = None, *, verbose: int = 0, **kwargs: Any) -> None:
        super().__init__(level=level, verbose=verbose, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The configuration as stored."""
        config = super().get_config().items()
        return {k: v for k, v in config if k not in _NEWER_JPEG2K_OPTIONS or v != _NEWER_JPEG2K_OPTIONS[k]}


_LIBRARY = (getattr(_imagecodecs, name) for name in _imagecodecs.__all__)
_CODECS: dict[str, type[Codec]] = {cls.codec_id: cls for cls in (*_LIBRARY, Jpeg2k) if getattr(cls, "codec_id", None)}


def register_codecs(codecs: Collection[str] | None = None, force: bool = False, verbose: bool = True) -> None:
    """Registers imagecodecs' codecs with numcodecs; calling it again does nothing.

    Args:
        codecs: ids such as 'imagecodecs_jpeg2k'; None registers all.
        force: replace even a foreign class that is registered under the same id.
        verbose: warn of such a class where it is kept.

    Raises:
        ValueError: a codec id is unknown.
    """
    codecs = _CODECS.keys() if codecs is None else codecs
    if unknown := sorted(set(codecs) - _CODECS.keys()):
        raise ValueError(f"unknown codecs {unknown}: give ids out of {sorted(_CODECS)}")
    for codec_id in codecs:
        codec = _CODECS[codec_id]
        other = codec_registry.get(codec_id, codec)
        if force or issubclass(codec, other):
            numcodecs.register_codec(codec)
        elif verbose:
            log.warning("codec %s is already registered as %s: keeping that", codec_id, other)
