import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from matplotlib.figure import Figure

from vitexp import cli
from vitexp.record import read_records, run_mark
from vitexp.report import style
from vitexp.report.html import write_html
from vitexp.study.csv_runs import read_csv


class Page(HTMLParser):
    """The tags of a page in their order, its tables as rows of text, and whether every tag is closed."""

    EMPTY = ("meta", "img", "br", "!doctype")
    IMPLIED = ("td", "th", "tr")  # of which HTML knows where they end

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.rows = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        while tag in self.IMPLIED and self.open[-1] in self.IMPLIED[: 3 if tag == "tr" else 2]:
            self.open.pop()
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        while self.open[-1] != tag and self.open[-1] in self.IMPLIED:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data + " "


@pytest.fixture(scope="module")
def page(filled, tmp_path_factory):
    text = write_html([(filled.study.path, filled.root)], tmp_path_factory.mktemp("page")).read_text()
    return text, Page(text)


def test_every_tag_is_closed(page):
    assert page[1].open == []


def test_nothing_comes_from_outside(page):
    text, read = page
    assert "default-src 'none'" in text
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    sources = [value for _, name, value in read.attributes if name in ("src", "href")]
    assert all(source.startswith(("data:image/svg+xml,", "#")) for source in sources)
    assert not re.search(r"https?://", re.sub(r'src="data:[^"]*"', "", text))


def test_the_table_says_what_the_terminal_says(page):
    row = next(row for row in page[1].rows if row[0].strip() == "1-D" and "paper" in row[1])
    assert re.fullmatch(r"\d\d\.\d\d ± \d\.\d\d +◆ +paper 64\.21 +", row[1])
    assert re.fullmatch(r"\S+ ± \S+ +[+−]\S+ ± \S+ +equivalent +paper 63\.96 \(−0\.24\) +", row[2])


def claims_of(read):
    """The rows of the table of claims: a claim is a row of one cell, and the rows below it are its lines."""
    start = next(i for i, row in enumerate(read.rows) if row and row[0].strip() == "verdict")
    width = len(read.rows[start])
    found = [row for row in read.rows[start + 1 :] if len(row) in (1, width)]
    return [[" ".join(cell.split()) for cell in row] for row in found]


def test_the_claims_that_the_study_speaks_to_are_there_with_verdict_and_numbers(page):
    rows = claims_of(page[1])
    claims = [row[0] for row in rows if len(row) == 1]
    assert [claim.split(" Table 8")[0] for claim in claims] == [
        "Without a position embedding accuracy is lower",
        "1-D, 2-D and relative position embeddings are alike",
        "Positions added at the stem, in every layer, or in every layer from one table are alike",
    ]
    verdict, place, differences, _ = rows[1]
    assert verdict == "supports"
    assert place.startswith("digits · at the stem · top-1 accuracy")
    assert re.match(r"none − 1-D: −1\.94 ± 0\.\d\d n 5, p < 0\.001 none − 2-D: ", differences)
    assert [row[3] for row in rows if len(row) == 4][2] == "within ±1 point"
    assert "hold together in 95 % of cases" in page[0]


def test_claims_rest_on_the_runs_that_are_asked_for(lab, filled, tmp_path):
    study = lab.positions(**{"study.name": "two"})
    lab.fill(study, filled.metrics_of, config={"trainer.max_epochs": 10})
    lab.fill(study, lambda cell: {"test_acc": 0.5, "fewshot_5": 0.5}, config={"trainer.max_epochs": 20})
    text = write_html([(study.path, lab.root)], tmp_path, where={"trainer.max_epochs": 10}).read_text()
    assert re.match(r"none − 1-D: −1\.94 ± 0\.\d\d n 5", claims_of(Page(text))[1][2])


def test_a_study_that_no_claim_is_about_says_so(lab, tmp_path):
    study = lab.study({"study.name": "s"}, {"model.dropout": [0.0, 0.1], "seed_everything": [0, 1, 2]})
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    text = write_html([(study.path, lab.root)], tmp_path, tmp_path).read_text()
    assert "Nothing: no claim of the paper is about what this study compares." in text


def test_every_run_is_listed_with_its_numbers(page, filled):
    runs = [row for row in page[1].rows if len(row) == 10 and row[0].strip().isdigit()]
    assert len(runs) == 40
    record = filled.records[3]
    (row,) = [row for row in runs if row[7].strip() == record.fingerprint]
    assert row[1].strip() == f"{100 * record.metrics['test_acc']:.2f}"
    assert int(row[0]) == record.seed


def test_missing_runs_stand_there_with_their_reason_and_no_number(lab, filled, tmp_path):
    study = lab.positions(**{"study.name": "gaps"})
    first, *rest = study.cells()
    lab.run(first, {}, study="gaps", status="failed", reason="the loss is <NaN>")
    for cell in rest:
        lab.run(cell, filled.metrics_of(cell), study="gaps")
    text = write_html([(study.path, lab.root)], tmp_path, tmp_path).read_text()
    (row,) = [row for row in Page(text).rows if "failed" in " ".join(row) and len(row) == 10]
    assert [cell.strip() for cell in row] == ["0", "–", "–", "", "", "", "", "", "", "failed (the loss is <NaN>)"]
    assert "failed (the loss is &lt;NaN&gt;)" in panels(text)["s1-1"]


def test_words_of_a_study_cannot_become_markup(lab, filled, tmp_path):
    study = lab.positions(**{"study.name": "evil", "study.title": "<img src=x onerror=alert(1)> & {body} {0}"})
    lab.fill(study, filled.metrics_of)
    text = write_html([(study.path, lab.root)], tmp_path, tmp_path).read_text()
    assert "<h1>&lt;img src=x onerror=alert(1)&gt; &amp; {body} {0}</h1>" in text
    assert Page(text).open == []


def test_a_study_of_data_sizes_has_its_curve_and_what_is_read_off_it(lab, tmp_path):
    swept = {"model.pos_embed": ["none", "1d"], "data.train_images": [64, 128, 256], "seed_everything": [0, 1, 2]}
    study = lab.study({"study.name": "size", "study.baseline": {"model.pos_embed": "1d"}}, swept)
    lab.fill(study, lambda cell: {"test_acc": 0.5 + cell.overrides["data.train_images"] / 1000})
    text = write_html([(study.path, lab.root)], tmp_path, tmp_path).read_text()
    assert text.count("data:image/svg+xml") == 1
    assert "<li>All arms: no power law is drawn; three numbers need 4 sizes" in text


def panels(text):
    """The panels behind the numbers, by their ids."""
    parts = text.split('<div popover role="dialog" class="panel" id="')[1:]
    return {part.partition('"')[0]: part for part in parts}


def test_every_mean_opens_what_is_behind_it(page, filled):
    text, read = page
    opened = {value for tag, name, value in read.attributes if name == "popovertarget"}
    assert opened == {value for tag, name, value in read.attributes if name == "id" and re.fullmatch(r"s1-\d+", value)}
    assert len(opened) == 8
    ((target, mean),) = re.findall(r'popovertarget="(\S+)">([\d.]+ ± [\d.]+)</button> ◆', text)[:1]
    runs = [one for one in filled.records if one.config["model"] == {"pos_embed": "1d", "pos_at": "stem"}]
    behind = panels(text)[target]
    assert len(runs) == 5
    assert all(f"<code>{one.fingerprint}</code>" in behind for one in runs)
    values = [one.metrics["test_acc"] for one in runs]
    assert mean.startswith(f"{100 * sum(values) / 5:.2f} ")


def test_a_panel_says_how_its_arm_was_configured_made_and_is_made_again(lab, filled, tmp_path):
    study = lab.positions(**{"study.name": "made"})
    code, device = {"source": "5" * 16, "commit": "c" * 40, "dirty": True}, {"type": "cpu", "threads": 2}
    for cell in study.cells():
        folder = lab.root / "made" / f"{cell.index} & <b>" / "seed-0"
        lab.run(cell, filled.metrics_of(cell), study="made", folder=folder, code=code, device=device,
                files={"config": "config.yaml"}, curves={"val_acc": [(21, 0.5), (42, 0.75), (84, 1.0)]},
                data={"name": "digits", "test_images": 360, "shards_fingerprint": "f" * 16})  # fmt: skip
    text = write_html([(study.path, lab.root)], tmp_path).read_text()
    behind = panels(text)["s1-1"]
    shared = text[text.index('<dl class="made">') : text.index('<div class="runs">')]
    assert all(word in shared for word in (f"{'c' * 40} with changes", "5" * 16, "f" * 16, "type cpu, threads 2"))
    assert "<th>model.pos_embed<td>1d<td>none\n" in behind
    assert "0 &amp; &lt;b&gt;/seed-0/config.yaml&#39; --run.root runs-again" in behind
    assert 'data-x="21" data-y="0.01" data-seeds="0 1 2 3 4"' in behind  # in units of 21 steps and of 0.01 %
    assert '<polyline points="1 5000 2 7500 4 10000"/>' in behind


def test_facts_that_differ_between_arms_stand_behind_each(lab, tmp_path):
    study = lab.study({"study.name": "s"}, {"model.dropout": [0.0, 0.1], "seed_everything": [0, 1]})
    for cell in study.cells():
        device = {"type": "cpu", "threads": cell.index}
        lab.run(cell, {"test_acc": 0.9}, study="s", device=device)
    text = write_html([(study.path, lab.root)], tmp_path).read_text()
    behind = panels(text)["s1-1"]
    assert "<dt>device</dt><dd>type cpu, threads 0 (seeds 0); type cpu, threads 1 (seeds 1)</dd>" in behind
    assert "<dt>device</dt>" not in text[text.index('<dl class="made">') : text.index('<div class="runs">')]


def test_several_studies_stand_in_one_page_with_ids_of_their_own(lab, filled, tmp_path):
    other = lab.study({"study.name": "t", "study.title": "T"}, {"model.dropout": [0.0, 0.1], "seed_everything": [0, 1]})
    lab.fill(other, lambda cell: {"test_acc": 0.9})
    text = write_html([(filled.study, filled.root), (other, lab.root)], tmp_path).read_text()
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert "<h1>Report on 2 studies</h1>" in text
    assert '<a href="#s2">T</a>' in text


def test_what_other_commands_found_is_taken_in_and_cannot_act(filled, tmp_path):
    folder = tmp_path / "pos" / "<i>"
    folder.mkdir(parents=True)
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><title>A &lt; B</title><script>alert(1)</script></svg>'
    (folder / "cka.svg").write_text(svg)
    (folder / "drop.csv").write_text("arm,drop\n<script>,0.5\nx\n")
    (folder / "long.csv").write_text("a,b\n" + "x" * 200_000 + ",1\n")
    painted = f'{svg[:-6]}<image href="data:image/png;base64,AAAA"/></svg>'
    (folder / "filters.svg").write_text(painted)
    (folder / "large.svg").write_text(svg + " " * 1_200_000)
    text = write_html([(filled.study, filled.root)], tmp_path / "out", tmp_path).read_text()
    found = re.findall(r'<img(.*?) alt="([^"]*)" src="data:image/svg\+xml,([^"]*)">', text)
    # what is drawn turns dark with the page, and pixels of photographs do not
    assert [(kind, alt, unquote(url)) for kind, alt, url in found] == [
        (' class="drawn"', "A &lt; B", svg), ("", "A &lt; B", painted)
    ]  # fmt: skip
    assert re.search(r"prefers-color-scheme: dark\) \{\s*img .*img\.drawn \{ filter: invert", text)
    assert "<th>&lt;script&gt;<td>0.5\n" in text
    assert "large.svg is not taken in" in text
    assert text.count("<script>") == 1


def test_pictures_and_tables_of_other_runs_are_not_taken_in(filled, tmp_path):
    folder = tmp_path / "pos"
    folder.mkdir()
    ours, *_ = read_records(filled.root)[0]
    for name, marks in {"ours": run_mark(ours), "others": f"{run_mark(ours)} 0123456789ab"}.items():
        with style.settings():
            (folder / f"{name}.svg").write_bytes(style.svg(Figure(), marks.split()))
    (folder / "robustness.csv").write_text("of runs that are gone")
    text = write_html([(filled.study, filled.root)], tmp_path / "out", tmp_path).read_text()
    assert "<figcaption>ours.svg</figcaption>" in text
    assert "others.svg is not taken in: it is of other runs than those of this page" in text


def test_a_study_without_results_does_not_stop_those_beside_it(lab, capsys):
    for name in ("s", "young"):
        study = lab.study({"study.name": name}, {"model.dropout": [0.0, 0.1], "seed_everything": [0, 1]})
        for cell in study.cells():
            lab.run(cell, {"test_acc": 0.9}, study=name, status="finished" if name == "s" else "running")
    (lab.root / "broken" / "cell" / "seed-0").mkdir(parents=True)
    (lab.root / "broken" / "cell" / "seed-0" / "record.json").write_text("{")
    assert cli.main(["report", "--root", str(lab.root), "--out", "page"]) == 0
    told = capsys.readouterr().err
    text = Path("page/report.html").read_text()
    assert "young holds no finished run" in told
    assert "broken holds no run that can be read" in told
    assert text.count('<p class="caution">Left out: ') == 2
    assert cli.main(["report", str(lab.root / "young"), "--out", "page"]) == cli.BAD_INPUT


def test_a_page_of_some_runs_says_so(lab, tmp_path):
    study = lab.study({"study.name": "s"}, {"model.dropout": [0.0, 0.1], "seed_everything": [0, 1]})
    lab.fill(study, lambda cell: {"test_acc": 0.9})
    text = write_html([(study.path, lab.root)], tmp_path, where={"model.dropout": 0.1}).read_text()
    assert "Only runs with " in text
    assert "not run" not in text


def test_a_csv_file_is_not_said_to_be_trained_again(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("arm,seed,test_acc\n" + "".join(f"{arm},{seed},0.{8 + seed}\n" for arm in "ab" for seed in (0, 1)))
    text = write_html([read_csv(path)], tmp_path).read_text()
    assert "vitexp sweep" not in text


def test_differences_of_arms_have_the_room_that_is_left(filled, tmp_path):
    folder = tmp_path / "pos" / "inspect"
    folder.mkdir(parents=True)
    for name in ("2d-minus-1d-cka", "2d-rollout"):
        (folder / f"{name}.svg").write_text("<svg>" + " " * 600_000)
    text = write_html([(filled.study, filled.root)], tmp_path / "out", tmp_path).read_text()
    assert "<figcaption>inspect/2d-rollout.svg</figcaption>" in text
    assert "inspect/2d-minus-1d-cka.svg is not taken in" in text


def test_the_table_of_robustness_is_there_once_it_was_made(lab, tmp_path):
    study = lab.study(
        {"study.name": "s", "study.baseline": {"model.pool": "cls"}},
        {"model.pool": ["cls", "gap"], "seed_everything": [0, 1, 2]},
    )
    lab.fill(study, lambda cell: {"test_acc": 0.9 + cell.seed / 100, "robust/shuffle_2x2": 0.5 + cell.seed / 100})
    assert "changed test images" not in write_html([(study.path, lab.root)], tmp_path, tmp_path).read_text()
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "robustness.csv").write_text("")
    text = write_html([(study.path, lab.root)], tmp_path, tmp_path).read_text()
    part = text[text.index("Robustness: the same networks on changed test images") :]
    assert re.search(r'Pieces of a grid shuffled.*?popovertarget="s1-1">51.00 ± [\d.]+</button> ◆', part, re.DOTALL)
    assert "Exploratory: every column that is not marked as primary" in part


def test_a_folder_that_cannot_be_written_is_refused_before_records_are_read(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--out \S+/file cannot be written to \(.*\); name another folder"):
        write_html([(tmp_path / "absent.yaml", tmp_path)], tmp_path / "file")
