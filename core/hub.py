"""Finding a checkpoint's files, on disk or on the Hub, and writing files so that a crash loses nothing."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, CheckpointNotFoundError


def resolve_file(name_or_path: str | os.PathLike[str], filename: str, *, required: bool = True) -> Path | None:
    """Return the local path of one file of a checkpoint.

    Args:
        name_or_path: a folder, or a Hub repository's name such as `google/mobilebert-uncased`.
        filename: the file's name inside it, such as `config.json`.
        required: raise when the file is not there, instead of returning None.

    Raises:
        CheckpointNotFoundError: there is no such folder or repository, or it lacks a required file.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        path = folder / filename
        if path.is_file():
            return path
        if required:
            held = ", ".join(sorted(entry.name for entry in folder.iterdir())) or "nothing"
            raise CheckpointNotFoundError(f"{folder} has no {filename}; it holds: {held}.")
        return None
    if folder.exists():
        raise CheckpointNotFoundError(f"{folder} is a file; give the folder that holds {filename}.")
    return _download(str(name_or_path), filename, required=required)


def _download(repository: str, filename: str, *, required: bool) -> Path | None:
    """Fetch one file of a Hub repository into its cache and return the cached path."""
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        return Path(hf_hub_download(repository, filename))
    except HFValidationError as error:
        raise CheckpointNotFoundError(
            f"There is no folder {repository!r} here, and it cannot be a Hub name ('owner/name') either."
        ) from error
    except EntryNotFoundError as error:
        # An offline cache miss is of this class too, and by itself says nothing about what the repository holds; but
        # the cache notes the files that it once asked for and that were not there.
        known_absent = try_to_load_from_cache(repository, filename) is _CACHED_NO_EXIST
        if type(error).__name__ == "LocalEntryNotFoundError" and not known_absent:
            raise _unreachable(repository, filename, error) from error
        if required:
            raise CheckpointNotFoundError(f"The Hub repository {repository!r} has no {filename}.") from error
        return None
    except Exception as error:
        raise _unreachable(repository, filename, error) from error


def _unreachable(repository: str, filename: str, error: Exception) -> CheckpointNotFoundError:
    return CheckpointNotFoundError(
        f"There is no folder {repository!r} here, and {filename} could not be fetched from the Hub repository of that "
        f"name ({type(error).__name__}). Check the spelling, the connection, or give a local folder."
    )


def read_json(path: str | os.PathLike[str], what: str = "JSON file") -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        CheckpointError: the file is not UTF-8 text, not JSON, or not an object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: this {what} is not UTF-8 text; it may be damaged or another file.") from error
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{path}: this {what} is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: this {what} should hold an object, and holds a {type(content).__name__}.")
    return content


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, if need be.

    Raises:
        CheckpointError: a file is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise CheckpointError(
            f"{folder} cannot be made a folder: a file is in the way. Choose another name."
        ) from error


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place on success, remove it on failure.

    Whoever reads `path` sees the old content or the new, never a part. The parent folder is made if need be.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic_write(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    target = Path(path)
    make_folder(target.parent)
    # The suffix is kept last, since some writers choose their form by it.
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex}{target.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text in one step: the old file stays until the new one is complete."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write one JSON object, indented, with its keys in order, in one step."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
