"""The page of `vitexp report` as a browser shows it. Needs Chromium; accessibility needs axe-core beside it."""

import csv
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vitexp.report.html import write_html
from vitexp.report.tables import write_table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
RUN_AXE = """
<script>%s</script>
<script>addEventListener("load", async () => {
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const found = [await axe.run()];
  document.querySelector(".panel").showPopover();
  found.push(await axe.run(".panel:popover-open"));
  const told = found.flatMap((one) => one.violations).map((one) => `${one.id}: ${one.nodes[0].html}`);
  document.body.replaceChildren(`checked ${found[0].passes.length} ${found[1].passes.length} [${told.join("; ")}]`);
})</script>"""


def axe():
    """The source of axe-core: what AXE_CORE names, or an installed npm or pip package."""
    packages = Path(pytest.__file__).parents[1]
    places = [Path.cwd(), Path(__file__).parents[2], Path("/usr"), Path("/usr/local/lib"), Path("/usr/lib")]
    found = [Path(os.environ.get("AXE_CORE", "absent"))]
    found += [place / "node_modules/axe-core/axe.min.js" for place in places]
    found += [packages / name / "axe.min.js" for name in ("axe_playwright_python", "axe_core_python")]
    return next((path.read_text(encoding="utf-8") for path in found if path.is_file()), None)


def shown(page, tmp_path, *options):
    """What the browser makes of a page, and what it says on its console."""
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
             "--enable-logging=stderr", "--v=0", "--virtual-time-budget=20000", *options, "--dump-dom"]  # fmt: skip
    done = subprocess.run([*words, page.as_uri()], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def written(filled, tmp_path_factory):
    """The page of a study of 40 runs, some with curves, and the folder of its table."""
    folder = tmp_path_factory.mktemp("page")
    write_table(filled.study.path, filled.root, folder)
    (folder / "pos" / "none-cka.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><title>CKA</title></svg>'
    )
    return write_html([(filled.study.path, filled.root)], folder, folder), folder


def test_a_browser_finds_no_fault_and_shows_the_numbers_of_the_table(written, tmp_path):
    page, folder = written
    text, faults = shown(page, tmp_path)
    assert faults == []
    with (folder / "pos" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    means = re.findall(r'<button popovertarget="s1-\d+">([\d.]+) ± ([\d.]+)</button>', text)
    half = [(float(row["high"]) - float(row["low"])) / 2 for row in rows]
    expected = [(f"{100 * float(row['mean']):.2f}", f"{100 * one:.2f}") for row, one in zip(rows, half, strict=True)]
    assert sorted(means) == sorted(expected)
    seeds = {f"{100 * float(one.partition(':')[2]):.2f}" for row in rows for one in row["values"].split()}
    (runs,) = re.findall(r'<table class="rows"><caption>Runs</caption>.*?</table>', text, re.DOTALL)
    assert len(re.findall("<tr>", runs)) == 41
    assert set(re.findall(r"<td>([\d.]+)</td>", runs)) >= seeds


def test_pictures_become_larger_by_keys_and_are_as_before_after_reset(written, tmp_path):
    text = written[0].read_text()
    digest = re.search(r"script-src '([^']*)'", text)[1]
    asked = """<script>addEventListener("load", () => {
      const shown = document.querySelector("figure svg"), place = shown.parentNode, widths = [];
      const width = () => widths.push(Math.round(shown.getBoundingClientRect().width));
      width();
      for (const key of ["+", "-", "+", "0"]) { place.dispatchEvent(new KeyboardEvent("keydown", { key })); width(); }
      place.previousElementSibling.firstElementChild.click(); width();
      document.body.replaceChildren(`widths ${widths.join(" ")}`);
    })</script></body>"""
    page = tmp_path / "asked.html"
    page.write_text(text.replace(f"'{digest}'", "'unsafe-inline'").replace("</body>", asked))
    found, faults = shown(page, tmp_path)
    assert faults == []
    first, larger, again, more, reset, clicked = map(int, re.search(r"widths ([\d ]+)", found)[1].split())
    assert first == again == reset
    assert larger == more == clicked == pytest.approx(1.5 * first, abs=1)


def test_runs_are_sorted_by_date_and_a_tap_says_a_value(written, tmp_path):
    text = written[0].read_text()
    digest = re.search(r"script-src '([^']*)'", text)[1]
    dates = iter(f"2026-11-{1 + 7 * i % 28:02} 10:00:00" for i in range(40))
    text = re.sub(r"<td>\d{4}-\d\d-\d\d [\d:]+", lambda _: f"<td>{next(dates)}", text)
    asked = """<script>addEventListener("load", () => {
      const table = document.querySelector(".runs table"), heads = [...table.tHead.rows[0].cells];
      const place = heads.findIndex((one) => one.textContent.startsWith("started"));
      heads[place].querySelector("button").click();
      const dates = [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
      const mark = document.querySelector(".mark");
      mark.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true, pointerType: "touch" }));
      const tip = document.getElementById("tip");
      document.body.replaceChildren(`dates ${dates.join(",")} tip ${tip.hidden} ${tip.textContent} end`);
    })</script></body>"""
    page = tmp_path / "asked.html"
    page.write_text(text.replace(f"'{digest}'", "'unsafe-inline'").replace("</body>", asked))
    found, faults = shown(page, tmp_path)
    assert faults == []
    said = re.search(r"dates (.*) tip (\w+) (.*) end", found, re.DOTALL)
    assert said, found[-2000:]
    dates = said[1].split(",")
    assert len(set(dates)) > 1
    assert dates == sorted(dates)
    assert (said[2], "±" in said[3] or "seed" in said[3]) == ("false", True), said[3]


@pytest.mark.skipif(axe() is None, reason="axe-core is not installed; AXE_CORE may name its axe.min.js")
@pytest.mark.parametrize("scheme", ["0", "1"], ids=["dark", "light"])
def test_axe_finds_no_violation(written, tmp_path, scheme):
    text = written[0].read_text()
    digest = re.search(r"script-src '([^']*)'", text)[1]
    page = tmp_path / "checked.html"
    page.write_text(text.replace(f"'{digest}'", "'unsafe-inline'").replace("</body>", RUN_AXE % axe() + "</body>"))
    found, _ = shown(page, tmp_path, f"--blink-settings=preferredColorScheme={scheme}")
    rules = re.search(r"checked (\d+) (\d+) \[(.*)\]", found, re.DOTALL)
    assert rules, found[-500:]
    assert int(rules[1]) > 15
    assert int(rules[2]) > 5
    assert rules[3] == ""
