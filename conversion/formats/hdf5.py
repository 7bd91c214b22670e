"""Writing HDF5 so that a full disk is an error and not the end of the process."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import h5py


class _Sink(io.RawIOBase):
    """A file that keeps the first error of writing to itself, and takes what follows as if all were well.

    HDF5 writes much of a file when that is closed, and cannot give up on it: where writing fails then, it ends the
    process or spoils its end.

    Attributes:
        error: the first error; None if there was none.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def readable(self) -> bool:
        """It can be read."""
        return True

    def writable(self) -> bool:
        """It can be written."""
        return True

    def seekable(self) -> bool:
        """Any place of it can be gone to."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """Read from the place on; zeros where an error has kept something from being written."""
        view = memoryview(buffer).cast("B")
        read: int = self._file.readinto(view)  # type: ignore[attr-defined]
        if self.error is None:
            return read
        view[read:] = bytes(len(view) - read)
        return len(view)

    def write(self, buffer: Any) -> int:
        """Write at the place."""
        view = memoryview(buffer).cast("B")
        if self.error is None:
            try:
                written = 0
                while written < len(view):
                    written += self._file.write(view[written:])
            except OSError as error:
                self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Cut the file, or lengthen it."""
        return self._file.truncate(size) if self.error is None else size or 0


@contextmanager
def new_hdf5(file: BinaryIO) -> Iterator[h5py.File]:
    """Yield an HDF5 file that is written into an open file, unbuffered and readable.

    Raises:
        OSError: it could not be written; what is in the file then is of no use.
    """
    sink = _Sink(file)
    with h5py.File(sink, "w") as opened:
        yield opened
    if sink.error is not None:
        raise sink.error
