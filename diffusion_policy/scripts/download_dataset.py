"""Fetches the demonstrations of a task and puts them where the training configs look for them."""

import hashlib
import os
import tempfile
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.zarr_array import read_array, row_blocks

TIMEOUT_S = 30
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Dataset:
    """An archive on the web that holds a replay buffer.

    Attributes:
        url: where the archive is.
        path: the replay buffer in the archive, and in the data folder once unpacked.
        checksum: `dataset_checksum` of the replay buffer.
    """

    url: str
    path: str
    checksum: str


DATASETS = {
    "pusht": Dataset(
        url="https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip",
        path="pusht/pusht_cchi_v7_replay.zarr",
        checksum="939872058a7efaf87a0d8e08a634396392a76a6117f249080e480b34bdd6a6e0",
    ),
}


def dataset_checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 over the values of a replay buffer, however they are chunked, compressed or typed.

    Hashed are, for each key of `data` in alphabetical order, the key, its number of rows and columns, and its
    values as little-endian float32; then `episode_ends` as little-endian int64.

    Raises:
        ValueError: it is no replay buffer, or it is damaged.
    """
    buffer = ReplayBuffer.create_from_path(path)
    digest = hashlib.sha256()
    for key in sorted(buffer.keys()):
        array = buffer[key]
        columns = int(np.prod(array.shape[1:]))
        digest.update(f"{key} {array.shape[0]} {columns}\n".encode())
        for rows in tqdm(list(row_blocks(array)), desc=f"checking {key}", leave=False):
            digest.update(np.ascontiguousarray(read_array(array, rows), dtype="<f4").data)
    digest.update(np.ascontiguousarray(buffer.episode_ends, dtype="<i8").data)
    return digest.hexdigest()


def fetch(dataset: Dataset, output: Path) -> Path:
    """Downloads and unpacks a dataset into the folder `output`, unless it is there; returns where it is.

    What an interrupted run has downloaded is kept and continued. The replay buffer appears whole or not at
    all.

    Raises:
        OSError: the download failed, or the disk is full.
        ValueError: the archive is not what it should be, or other data are in the way.
    """
    target = output / dataset.path
    if target.exists():
        if dataset_checksum(target) != dataset.checksum:
            raise ValueError(f"{target} exists but is not the published dataset: move it away, then run again")
        return target
    output.mkdir(parents=True, exist_ok=True)
    archive = output / f"{Path(dataset.path).parts[0]}.zip.downloaded"
    if not archive.exists():
        download(dataset.url, archive)
    try:
        with tempfile.TemporaryDirectory(dir=output, prefix=".unpacking-") as folder:
            unpacked = _checked(dataset, unpack(archive, Path(folder)))
            target.parent.mkdir(parents=True, exist_ok=True)
            unpacked.rename(target)
    except ValueError:
        archive.unlink()
        raise
    archive.unlink()
    return target


def _checked(dataset: Dataset, folder: Path) -> Path:
    unpacked = folder / dataset.path
    if not unpacked.exists():
        raise ValueError(f"{dataset.url} does not contain {dataset.path}: is the URL right?")
    if dataset_checksum(unpacked) != dataset.checksum:
        raise ValueError(f"the data from {dataset.url} are not the published ones (wrong checksum)")
    return unpacked


def download(url: str, path: Path) -> None:
    """Downloads to `path`, by way of a '.part' file, which the next call continues should this one fail.

    It continues only what the server says is still the same file; else it starts over.

    Raises:
        OSError: the server cannot be reached or says no, or the connection broke.
    """
    part, note = path.with_suffix(".part"), path.with_suffix(".part.json")
    request = urllib.request.Request(url, headers=_headers(url, part, note))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            size = _receive(response, url, part, note)
    except (HTTPException, OSError) as error:
        if getattr(error, "code", None) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # it is as long as the file, or longer
        raise OSError(
            f"cannot download {url}: {error}. Check the network, the URL and the disk, then run again to continue"
        ) from error
    if size is not None and part.stat().st_size != size:
        raise OSError(f"got {part.stat().st_size} of {size} bytes of {url}: run again to continue")
    part.rename(path)
    note.unlink()


def _headers(url: str, part: Path, note: Path) -> dict[str, str]:
    """Asks for what is missing, on condition that the file is the one that `part` is the beginning of."""
    headers = {"User-Agent": "diffusion_policy", "Accept-Encoding": "identity"}
    if part.exists() and note.exists():
        known_url, _, validator = note.read_text().partition("\n")
        if known_url == url and validator:
            headers |= {"Range": f"bytes={part.stat().st_size}-", "If-Range": validator}
    return headers


def _receive(response: HTTPResponse, url: str, part: Path, note: Path) -> int | None:
    """Continues, or starts, the partial file; returns the size that it should have if the server told."""
    resumed = response.status == HTTPStatus.PARTIAL_CONTENT
    start = part.stat().st_size if resumed else 0
    if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise HTTPException(f"asked for bytes from {start}, got {response.headers.get('Content-Range')}")
    length = response.headers.get("Content-Length")
    size = None if length is None else start + int(length)
    with (
        part.open("ab" if resumed else "wb") as file,
        tqdm(desc=url.rsplit("/", 1)[-1], total=size, initial=start, unit="B", unit_scale=True) as progress,
    ):
        note.write_text(f"{url}\n{_validator(response)}")
        while block := response.read(_BLOCK_BYTES):
            file.write(block)
            progress.update(len(block))
    return size


def _validator(response: HTTPResponse) -> str:
    """What `If-Range` may hold: a strong entity tag or a date; empty if the server gives neither."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks a zip file into `folder` and returns `folder`.

    Raises:
        ValueError: the archive is damaged, or has a member that would land outside `folder`.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                if not (folder / name).resolve().is_relative_to(folder.resolve()):
                    raise ValueError(f"{archive} is not to be trusted: it would write to {name!r}")
            for member in tqdm(file.infolist(), desc=f"unpacking {archive.name}"):
                file.extract(member, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{archive} is damaged ({error}): run again to download it anew") from error
    return folder


@click.command()
@click.argument("name", type=click.Choice(sorted(DATASETS)))
@click.option("--output", default="data", show_default=True, type=click.Path(path_type=Path), help="The data folder.")
@click.option("--url", help="Where to download the archive from, in place of the official server.")
def main(name: str, output: Path, url: str | None) -> None:
    """Download the demonstrations NAME and unpack them into the data folder.

    The training configs look for them in the folder 'data' of the directory that training starts in, which
    is the default. An interrupted download is continued by running the command again. The data are checked
    against the published ones, and nothing is downloaded if they are there already.

    Example: python -m diffusion_policy.scripts.download_dataset pusht
    """
    dataset = DATASETS[name]
    try:
        target = fetch(dataset if url is None else replace(dataset, url=url), output)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{name} is at {target}")


if __name__ == "__main__":
    main()
