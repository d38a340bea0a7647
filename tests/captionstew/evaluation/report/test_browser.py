"""The page in a real browser: no error, tables sort, clips play, nothing is fetched."""

import base64

import pytest

from captionstew.evaluation.report.build import write_report

AUDIO = """
Promise.all([...document.querySelectorAll("audio")].map((audio) => new Promise((resolve) => {
  const state = () => resolve([audio.duration, audio.error && audio.error.message]);
  if (audio.readyState > 0 || audio.error) state();
  audio.addEventListener("loadedmetadata", state);
  audio.addEventListener("error", state);
})))
"""
PLAYED = """
(async () => {
  const audio = document.querySelector("audio");
  audio.muted = true;
  await audio.play();
  await new Promise((resolve) =>
    audio.addEventListener("timeupdate", () => audio.currentTime > 0 && resolve()));
  return true;
})()
"""


def column(number):
    return f"""(() => {{
      const table = [...document.querySelectorAll("section")]
        .find((x) => x.textContent.startsWith("Table 3a"));
      return [...table.querySelectorAll("tbody tr")].map((row) => row.cells[{number}].textContent);
    }})()"""


def click(number):
    return f"""(() => {{
      const table = [...document.querySelectorAll("section")]
        .find((x) => x.textContent.startsWith("Table 3a"));
      table.querySelectorAll("th")[{number}].click();
    }})()"""


@pytest.mark.slow
def test_the_page_works_from_a_file_without_network(experiment, browser):
    page = write_report(experiment).with_name("index.html")
    browser.open(page)
    assert browser.run("document.title") == "CaptionStew results"  # no caption's script ran

    ours = 4  # of FSD50K: missing for those of the paper's systems that were not evaluated
    before = browser.run(column(ours))
    assert "missing" in before and "0.500 ± 0.010 (0 trained)" in before
    browser.run(click(ours))
    values = [float(text.split()[0]) for text in browser.run(column(ours)) if text[0].isdigit()]
    assert len(values) == 4 and values == sorted(values)
    browser.run(click(ours))
    falling = browser.run(column(ours))
    assert [float(text.split()[0]) for text in falling[:4]] == values[::-1]
    assert set(falling[4:]) == {"missing", "–"} and sorted(falling) == sorted(before)

    sounds = browser.run(AUDIO)
    assert [error for _, error in sounds] == [None, None]
    assert [seconds for seconds, _ in sounds] == pytest.approx([1, 10], abs=0.2)
    assert browser.run(PLAYED)
    assert browser.run(
        "[...document.images].every((image) => image.complete && image.naturalWidth > 100)"
    )
    assert browser.run("document.images.length") == 3  # curves, probes, scaling

    assert browser.errors() == []
    assert {address.split(":")[0] for address in browser.requests()} <= {"file", "data"}
    picture = base64.b64decode(browser.call("Page.captureScreenshot")["data"])
    (page.parent / "screenshot.png").write_bytes(picture)
    assert (
        picture.startswith(b"\x89PNG") and len(picture) > 20_000
    )  # an empty page has a few kilobytes


@pytest.mark.slow
def test_the_checks_see_a_broken_page(browser, tmp_path):
    page = tmp_path / "broken.html"
    page.write_text(
        '<audio src="data:audio/mpeg;base64,AAAA"></audio><script>throw new Error("no")</script>'
    )
    browser.open(page)
    assert browser.errors() and browser.run(AUDIO)[0][1]
