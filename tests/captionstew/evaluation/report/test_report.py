"""The report from result files alone: everything measured, and the paper's tables with ours
beside.
"""

import re

import pytest

from captionstew.evaluation.report.__main__ import main
from captionstew.evaluation.report.build import write_report
from captionstew.evaluation.report.figures import draw_scaling
from captionstew.evaluation.report.lookup import choose, size_of, written
from captionstew.evaluation.report.measured import clips_of, file_table, measured_tables
from captionstew.evaluation.report.paper_tables import paper_tables
from captionstew.evaluation.report.tables import MISSING, NONE, Table, as_markdown
from captionstew.evaluation.results import read_results
from captionstew.paper import paper

TITLES = [
    f"Table {number}:" for number in ("1", "2", "3a", "3b", "4", "5", "6", "7", "8", "9", "10")
]


def table(tables, title):
    return next(one for one in tables if one.title.startswith(title))


def row_of(one, name):
    return next(row for row in one.rows if row[0] == name)


def test_report_without_results(tmp_path):
    with pytest.raises(ValueError, match="run an evaluation first"):
        write_report(tmp_path)


def test_report_of_a_small_run(tmp_path, result, retrieval_metrics, monkeypatch, capsys):
    result(
        tmp_path / "contrastive",
        task="retrieval",
        system="pre|trained",
        metrics=retrieval_metrics(0.5),
        settings={"duplicate_captions": "match"},
        variant="match",
    )
    result(tmp_path / "probe" / "ours")
    result(tmp_path / "probe" / "ours", task="probe_average")
    result(tmp_path / "probe" / "ours", split="valid", metrics={"accuracy": 0.99})
    result(tmp_path / "probe" / "floor", system="logmel", task="probe_average")
    zero_shot = {
        "accuracy": 0.4,
        "accuracy_interval": (0.3, 0.5),
        "majority_class_share": 0.1,
        "num_classes": 10,
    }
    result(
        tmp_path / "contrastive", task="zero_shot", metrics=zero_shot, settings={"subset": "esc10"}
    )
    monkeypatch.setattr("sys.argv", ["report", "--exp-dir", str(tmp_path)])
    main()
    text = (tmp_path / "report" / "report.md").read_text()
    printed = capsys.readouterr().out
    row = (
        "| pre\\|trained | retrieval | test | match | text-to-audio | 0.500 [0.400, 0.600] | 0.500"
        " [0.400, 0.600] |"
    )
    for where in (text, printed):
        assert row in where and "| 0.100 | 5.0 | 100 | 0 |" in where
        assert "| encoder | pooling | esc10 | average |" in where
        assert "| ours |  | 0.750 ± 0.010 [0.700, 0.800] (0) | 0.750 ± 0.010" in where
        assert "| logmel |  | missing | 0.750" in where
        assert "| ours | esc10 | 0.400 [0.300, 0.500] | 0.100 | 10 | 100 | 0 |" in where
        assert "## Probes on frozen encoders: valid" in where and "| ours |  | 0.990 (0) |" in where
    assert "index.html" in printed and "Table 10" in text and "Table 10" not in printed
    assert not (tmp_path / "report" / "curves.png").exists()


def test_every_table_and_figure_is_there(experiment, analysis):
    text = write_report(experiment).read_text()
    page = (experiment / "report" / "index.html").read_text()
    assert re.findall(r"^## (Table \w+:)", text, re.MULTILINE) == TITLES
    assert [title for title in TITLES if title not in page] == []
    for name in ("curves", "probes", "scaling"):
        picture = (experiment / "report" / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 5000
    assert all(f"({name}.png)" in text for name in ("curves", "probes", "scaling", "sources"))
    assert page.count("data:image/png") == 4 and page.count("<audio") == 2


def test_our_numbers_stand_beside_the_papers(experiment):
    tables = paper_tables(read_results(experiment), None)
    probing = table(tables, "Table 3a")
    assert probing.head[3:5] == ["AEC FSD50K mAP, paper", "ours"]
    assert row_of(probing, "Contrastive-scratch")[3:5] == [
        "0.625",
        "0.500 ± 0.010 (0 trained)",
    ]
    assert row_of(probing, "Captioning-scratch")[13:15] == [
        "63.10",
        "71.00 ± 1.00 (n = 100; 0 trained)",
    ]  # NSynth, in percent
    assert row_of(probing, "BEATs")[3:7] == ["0.565†", MISSING, NONE, MISSING]
    assert row_of(probing, "random")[3:5] == [NONE, "0.520 ± 0.010 (0 trained)"]
    assert row_of(probing, "SOTA")[4] == NONE
    assert row_of(table(tables, "Table 9"), "Contrastive-scratch")[3:5] == [
        "0.640",
        "0.500 ± 0.010 (0 trained)",
    ]
    assert row_of(table(tables, "Table 3b"), "Captioning-scratch")[9:11] == [
        "36.9",
        "30.0 (n = 100; 0 trained)",
    ]
    assert row_of(table(tables, "Table 2"), "FSD50K")[-1] == "4 systems"
    assert row_of(table(tables, "Table 8"), "FSD50K")[1:7] == [
        "37,168",
        "1,234",
        "10,231",
        "10,231",
        "200",
        MISSING,
    ]
    assert row_of(table(tables, "Table 7"), "ours")[1:] == [MISSING] * 6
    clotho = row_of(table(tables, "Table 1"), "Clotho")
    assert clotho == ["Clotho", "5K", MISSING, MISSING, "4,366", MISSING, MISSING]


def test_corpora_that_were_analysed(experiment, analysis):
    tables = paper_tables([], analysis)
    assert row_of(table(tables, "Table 1"), "AudioCaps") == [
        "AudioCaps",
        "46K",
        "70",
        "60",
        "4,844",
        "4,400",
        "4,321",
    ]
    mine = row_of(table(tables, "Table 1"), "mine")
    assert mine == ["mine", NONE, MISSING, "60", NONE, MISSING, "4,321"]
    words = row_of(table(tables, "Table 4"), "AudioCaps")
    assert (
        words[1:7] == ["5,572", "4,321", "8.46", "7.50", "0.011", "0.100"] and words[12] == MISSING
    )
    assert row_of(table(tables, "Table 5"), "AudioCaps")[1:4] == ["46k/46k", "30/60", "20"]
    examples = table(tables, "Table 6")
    assert (
        row_of(examples, "AudioCaps")[1] == "a dog, barking"
        and row_of(examples, "mine")[1] == "<b>mine</b>"
    )
    assert "&lt;b>mine" in as_markdown(examples)


def test_scaling_curves_of_any_task(tmp_path, result, monkeypatch):
    """A panel per task that was run with several data sizes; the paper's values only where it has
    some.
    """
    for task in ("probe_fsd50k", "probe_events"):
        for size, value in (("all", 0.5), ("200", 0.3)):
            for system in ("contrastive-scratch", "captioning-init"):
                result(tmp_path / system / size, task=task, system=system, metrics={"map": value},
                       settings={"metric": "map", "data_size": size})  # fmt: skip
    result(
        tmp_path, task="probe_nsynth", settings={"metric": "accuracy"}
    )  # says nothing about its data
    figures = []
    monkeypatch.setattr(
        "captionstew.evaluation.report.figures._finish", lambda figure, *_: figures.append(figure)
    )
    assert draw_scaling(read_results(tmp_path), tmp_path / "scaling.png")
    first, second = (axes for axes in figures[0].axes if axes.lines)
    assert [first.get_title(), second.get_title()] == ["FSD50K AEC", "probe_events"]
    assert [list(line.get_ydata()) for line in second.lines] == [[0.3, 0.5], [0.3, 0.5]]
    assert [label.get_text() for label in second.get_xticklabels()] == ["200", "all"]
    assert sorted(line.get_ydata()[0] for line in first.lines[2:]) == [0.58, 0.625, 0.652, 0.664]
    assert not draw_scaling(read_results(tmp_path / "nothing"), tmp_path / "scaling.png")


def test_data_sizes_have_rows_of_their_own(tmp_path, result):
    for size, value in (("all", 0.5), ("200", 0.25)):
        result(
            tmp_path / size,
            task="probe_events",
            system="contrastive-scratch",
            metrics={"accuracy": value},
            settings={"metric": "accuracy", "pooling": "mean", "data_size": size},
        )
    (probes,) = measured_tables(read_results(tmp_path))
    assert [row[:1] + row[2:] for row in probes.rows] == [
        ["contrastive-scratch", "0.500 (0)"],
        ["contrastive-scratch (200)", "0.250 (0)"],
    ]


def test_vectors_of_other_systems_have_their_row(tmp_path, result):
    settings = {"metric": "accuracy", "pooling": "embeddings"}
    result(
        tmp_path, task="probe_nsynth", system="theirs", metrics={"accuracy": 0.5}, settings=settings
    )
    assert "50.00" in " ".join(
        row_of(table(paper_tables(read_results(tmp_path), None), "Table 3a"), "theirs")
    )


def test_supervised_and_own_retrieval(tmp_path, result, retrieval_metrics):
    settings = {"metric": "accuracy", "pooling": "mean", "train_encoder": True}
    result(tmp_path, task="probe_vggsound", settings=settings, metrics={"accuracy": 0.5})
    result(tmp_path, task="tagging_audioset", settings={}, metrics={"map": 0.4567})
    for rule, value in (("match", 0.9), ("strict", 0.444)):
        result(
            tmp_path,
            task="own_retrieval_audiocaps",
            system="contrastive-init",
            metrics=retrieval_metrics(value),
            settings={"duplicate_captions": rule},
            variant=rule,
        )
    tables = paper_tables(read_results(tmp_path), None)
    assert row_of(table(tables, "Table 7"), "ours")[1:3] == [
        "0.457 (n = 100; 0 trained)",
        "50.00 (n = 100; 0 trained)",
    ]
    assert all(
        row[6] in (MISSING, NONE) for row in table(tables, "Table 3a").rows
    )  # not of a frozen encoder
    assert row_of(table(tables, "Table 10"), "Contrastive-init")[1:4] == [
        "44.4 / 79.0",
        "44.4 / 44.4 (n = 100; 0 trained)",
        "29.6 / 61.6",
    ]


def test_clips_that_were_trained_on_stand_beside_every_number(tmp_path, result, retrieval_metrics):
    some = {"trained": 7, "by_key": 3, "by_audio": None, "clips": 100, "complete": True}
    cases = {"7": some, "≥ 7": some | {"complete": False}, "?": None}
    for number, count in enumerate(cases.values()):
        folder, changes = tmp_path / str(number), {"system": f"s{number}", "trained_clips": count}
        result(folder, task="probe_nsynth", **changes)
        result(folder, task="qa_emotion", **changes)
        metrics = retrieval_metrics(0.5)
        result(folder, task="own_retrieval_audiocaps", metrics=metrics, **changes)
    results = read_results(tmp_path)
    tables = measured_tables(results)
    for number, shown in enumerate(cases):
        system = f"s{number}"
        probe = row_of(table(tables, "Probes"), system)[-1]
        assert probe == f"0.750 ± 0.010 [0.700, 0.800] ({shown})"
        for title in ("Retrieval", "Other"):
            assert row_of(table(tables, title), system)[-2:] == ["100", shown]
        papers = paper_tables(results, None)
        for title in ("Table 3a", "Table 10"):
            assert f" (n = 100; {shown} trained)" in " ".join(row_of(table(papers, title), system))
        assert [row[2] for row in file_table(results, tmp_path).rows if row[1] == system] == [
            shown
        ] * 3
    older = {name: value for name, value in results[0].items() if name != "trained_clips"}
    assert clips_of(older) == ["100", "?"]


def test_whose_split_and_whose_judgement_stand_beside_the_number(tmp_path, result):
    result(tmp_path, task="probe_cremad", settings={"pooling": "mean", "clip_split": "paper"})
    judged = {"scoring": "judge", "judge": "judge-1", "judge_prompt": "airbench"}
    result(tmp_path, task="qa_sound", metrics={"judge_score": 6.5}, settings=judged)
    tables = paper_tables(read_results(tmp_path), None)
    assert "paper split" in " ".join(sum(table(tables, "Table 3a").rows, []))
    assert "6.50 (n = 100; judged by judge-1, prompt airbench; " in " ".join(
        sum(table(tables, "Table 3b").rows, [])
    )


def test_which_of_several_files_fills_a_cell():
    def result(split="test", **settings):
        return {"split": split, "settings": settings, "created": settings.pop("created", "")}

    older, newer = result(created="2026-01-01"), result(created="2026-02-01")
    assert choose([newer, older]) is newer
    assert choose([newer, result("eval", created="2027")]) is newer
    assert choose([result(data_size="400k", created="2027"), older]) is older
    whole = result(data_size="all")
    assert choose([result(data_size="4M", created="2027"), whole]) is whole
    assert choose([]) is None and written(None, "map") == MISSING
    assert [size_of(text) for text in ("400k", "1M", "2000")] == [4e5, 1e6, 2000]
    with pytest.raises(ValueError, match="data size 'many' is neither"):
        size_of("many")


def test_the_papers_numbers_are_complete():
    """Every cell of the tables that hold numbers, by their counts, and a few read again from the
    paper.
    """
    numbers = paper()
    for name, systems in (("table_3a", 9), ("table_3b", 6), ("table_9", 6)):
        rows = numbers[name]["rows"]
        assert len(rows) == systems and set(rows) <= set(numbers["systems"])
        assert {len(row) for row in rows.values()} == {len(numbers[name]["columns"])}
    assert numbers["table_3a"]["rows"]["captioning-init"][2] == "26.23"
    assert numbers["table_3b"]["rows"]["contrastive-init"][5] == "29.4"
    assert numbers["table_9"]["rows"]["contrastive-scratch"][2] == "72.86"
    assert len(numbers["table_4"]["rows"]) == 9 and len(numbers["table_1"]["rows"]) == 8
    assert [len(row) for row in numbers["table_10"]["rows"].values()] == [7, 7]


def test_the_papers_numbers_stand_in_the_paper(shared_dir):
    text = (shared_dir / "paper.txt").read_text(encoding="utf-8")
    printed = {
        re.sub(r"[^\d.]", "", word)
        for word in re.split(r"[\s/*]", text.replace("<u>", " ").replace("</u>", " "))
    }
    cells = []
    for name in ("table_3a", "table_3b", "table_9", "table_10", "table_4"):
        cells += [cell for row in paper()[name]["rows"].values() for cell in row]
    numbers = [
        part for cell in cells for part in re.findall(r"\d[\d,.]*", cell) if cell[0].isdigit()
    ]
    assert (
        len(numbers) > 200
        and [number for number in numbers if number.replace(",", "") not in printed] == []
    )


def test_tables_must_be_rectangular():
    with pytest.raises(ValueError, match="T: rows of"):
        Table("T", ["a", "b"], [["1"]])


def test_a_probe_without_its_metric_is_named(tmp_path, result):
    result(tmp_path, settings={})
    with pytest.raises(
        ValueError, match=r"probe_esc10-test\.json: settings\.metric None is none of its metrics"
    ):
        write_report(tmp_path)


def test_only_protocols_with_results_have_tables(tmp_path, result):
    result(
        tmp_path, task="qa_emotion", metrics={"accuracy": 0.4, "strict_accuracy": 0.3}, settings={}
    )
    tables = measured_tables(read_results(tmp_path))
    assert [one.title for one in tables] == ["Other evaluations"]
    assert tables[0].rows[0][4] == "accuracy 0.400, strict_accuracy 0.300"


def test_training_sizes_of_questions_stand_in_table_8(tmp_path, result):
    counts = {"clothoaqa": 7000, "speakerqa": 159_000}
    result(tmp_path, task="qa_sound", metrics={"judge_score": 6.5}, settings={"num_train": counts})
    result(tmp_path, task="qa_emotion", settings={"num_train": counts})
    sizes = table(paper_tables(read_results(tmp_path), None), "Table 8")
    assert row_of(sizes, "ClothoAQA")[1:3] == ["7,044", "7,000"]
    assert row_of(sizes, "speaker questions")[1:3] == ["160,000", "159,000"]
    assert row_of(sizes, "MusicQA")[1:3] == ["70,011", MISSING]
