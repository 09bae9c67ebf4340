"""A sweep with parts of the user's own: certified for real before it trains, and the table says so."""

import json
from pathlib import Path

from vitexp import cli
from vitexp.record import read_records

EXAMPLE = (Path(__file__).parents[2] / "examples" / "my_ideas.py").read_text()
SWEEP = """
program: vitexp
method: grid
parameters:
  study.name: {{value: own}}
  study.baseline: {{value: {{model.pos_embed: none}}}}
  study.metrics: {{value: [test_acc]}}
  data.shards: {{value: {shards}}}
  data.train_images: {{value: 40}}
  data.batch_size: {{value: 20}}
  trainer.max_epochs: {{value: 1}}
  run.shots: {{value: []}}
  model.arch: {{value: micro/4}}
  model.pos_embed: {{values: [none, 'sweep_ideas:Alibi2D', 'sweep_ideas:Dead']}}
  seed_everything: {{values: [0]}}
command: ["${{env}}", "vitexp", "fit", "--config", "${{args_json_file}}"]
"""
DEAD = EXAMPLE[EXAMPLE.index("class") :].replace("Alibi2D", "Dead").replace("2-D ALiBi", "dead")
DEAD = DEAD.replace("return -self", "return 0 * self")


def test_a_dead_part_is_not_trained_the_others_are_and_the_table_says_so(digits, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("sweep_ideas.py").write_text(EXAMPLE + "\n\n" + DEAD)
    Path("sweep.yaml").write_text(SWEEP.format(shards=digits))
    assert cli.main(["sweep", "sweep.yaml", "--workers=2"]) == 1
    said = " ".join(capfd.readouterr().out.split())
    assert said.count("sweep_ideas:Dead is not trained: changes the output: pos_embed sweep_ideas:Dead leaves the") == 2
    assert "own: certified: 2 of 3 arms (3 networks checked now)" in said
    trained = sorted(str(record.config["model"]["pos_embed"]) for record in read_records("runs")[0])
    assert trained == ["none", "sweep_ideas:Alibi2D"]
    assert cli.main(["table", "sweep.yaml", "--json"]) == 0
    notes = json.loads(capfd.readouterr().out)["notes"]
    assert "certified before training: 2 of 2 arms, 11 checks each" in notes
