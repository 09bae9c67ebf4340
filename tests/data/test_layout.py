import threading
import time

import pytest

from vitexp.data.shards.layout import alone


def test_a_lock_that_another_holds_is_waited_for_and_then_named(tmp_path) -> None:
    path = tmp_path / "work.lock"
    held = rf"another process has held {path} for 0 seconds"
    with alone(path), pytest.raises(ValueError, match=held), alone(path, wait_seconds=0.01):
        pytest.fail("two hold the lock")
    with alone(path, wait_seconds=0):
        assert path.is_file()


def test_a_lock_file_that_its_holders_remove_still_lets_in_one_at_a_time(tmp_path) -> None:
    """A waiter on a removed file must not go in beside one that holds the file of that name made since."""
    path, inside, together = tmp_path / "work.lock", [], []

    def work() -> None:
        for _ in range(5):
            with alone(path, wait_seconds=-1):
                inside.append(1)
                together.append(len(inside))
                time.sleep(0.002)
                inside.pop()
                path.unlink(missing_ok=True)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [1] * 15
