import subprocess
import sys

from vitexp.study import lock


def test_one_process_holds_a_directory_until_it_dies(tmp_path):
    code = f"from vitexp.study import lock; print(lock.acquire({str(tmp_path)!r}), flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip().isdigit()
    assert lock.is_held(tmp_path)
    assert lock.acquire(tmp_path) is None
    other.kill()
    other.communicate()
    assert not lock.is_held(tmp_path)
    mine = lock.acquire(tmp_path)
    assert mine is not None
    lock.release(mine)


def test_asking_about_a_lock_leaves_nothing_behind(tmp_path):
    assert not lock.is_held(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []
