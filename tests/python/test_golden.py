"""The golden streams of `tests/golden`: see golden.py. `COULEE_GOLDEN=write` rewrites them."""

import golden
import pytest


@pytest.mark.parametrize("path", sorted(golden.FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_statements_give_what_the_file_says(tmp_path, path):
    wrong = golden.check(path, tmp_path)
    assert not wrong, "\n\n".join(wrong)
