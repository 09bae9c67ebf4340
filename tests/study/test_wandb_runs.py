from vitexp.record import RunRecord
from vitexp.study.select import _read_runs
from vitexp.wandb_record import end_summary, start_config


def test_a_damaged_run_of_a_server_is_named_and_the_others_are_read():
    config = {"seed_everything": 3}
    run = RunRecord(study="s", cell="c", seed=3, fingerprint="f", status="finished", config=config, finished="2026")
    sound = ("calm-1", start_config(run), end_summary(run), "finished")
    damaged = ("wild-2", {**start_config(run), "record.versions": 7}, end_summary(run), "finished")
    odd = ("wild-3", start_config(run), {**end_summary(run), "metrics": 5}, "finished")
    runs = _read_runs("the W&B sweep a/b/c", [sound, damaged, odd])
    assert [record.seed for record in runs.records] == [3]
    assert [text.split(" is not")[0] for text in runs.damaged] == [
        "run wild-2 in the W&B sweep a/b/c",
        "run wild-3 in the W&B sweep a/b/c",
    ]
