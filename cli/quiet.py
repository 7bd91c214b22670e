"""Starting TensorFlow without its greetings, which it writes to stderr whatever the log level."""

from __future__ import annotations

import os
import sys
import tempfile

from ..core.registry import import_part


def start_keras() -> None:
    """Import Keras and its backend; what they write to stderr meanwhile is shown only if the import fails.

    Native libraries write past `sys.stderr`, so the file descriptor itself is turned aside.

    Raises:
        MissingDependencyError: Keras or TensorFlow is not installed.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            import_part(".tf.modeling")
        except BaseException:
            aside.seek(0)
            os.write(stderr, aside.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
