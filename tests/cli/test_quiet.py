"""TensorFlow's greetings are held back, its troubles are not."""

import subprocess
import sys


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_keras_starts_without_a_word_and_stderr_works_afterwards():
    done = run(
        "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'\n"
        "from isobert.cli.quiet import start_keras; start_keras()\n"
        "import sys; assert 'keras' in sys.modules; os.write(2, b'after')"
    )
    assert (done.returncode, done.stderr) == (0, "after")


def test_what_was_written_before_a_failing_start_is_shown():
    done = run(
        "import sys, isobert.core.registry, isobert.cli.quiet as quiet\n"
        "def fail(name):\n"
        "    print('the reason', file=sys.stderr, flush=True)\n"
        "    raise ImportError(name)\n"
        "quiet.import_part = fail\n"
        "quiet.start_keras()"
    )
    assert done.returncode == 1
    assert "the reason" in done.stderr
    assert "ImportError" in done.stderr
