"""The leakage filter: no recording of an evaluation set may be in pretraining.

A row falls if its key, or the recording that its clip was cut from (the whole video:
`keys.group_key`), is on an evaluation list. This runs before consolidation: otherwise a
training caption of one corpus could bring in the audio of another under the key of an evaluation
clip.
"""

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captionstew.corpora.build.corpus_list import ALL_SPLITS, Entry
from captionstew.corpora.build.evaluation_keys import TEST_SPLITS
from captionstew.corpora.build.shipped_keys import HASH_SQL
from captionstew.corpora.keys import GROUP_SQL
from captionstew.data.tables.caption_table import COLUMNS, caption_schema, write_batches
from captionstew.data.tables.database import literal, parquet

MODES = ("strict", "test-only")


def filter_tables(
    connection: duckdb.DuckDBPyConnection,
    entries: Sequence[Entry],
    tables: Path,
    evaluation_keys: Path,
    output: Path,
    mode: str = "strict",
    license_filter: Sequence[str] = (),
    lists: Sequence[str] = (),
    shipped: Path | None = None,
) -> dict:
    """Write to `output`/<name>.parquet what may be trained on, and return the report.

    `mode` strict applies every list, test-only those of test splits. `license_filter`: shell
    patterns, without regard to case, of licenses to leave out. `lists`: those that were asked for,
    which the report names even where they have no key. `shipped`: hashes (`list`, `hash`) that
    stand for lists that are not whole. Every split listed for pretraining must hold rows.
    """
    if mode not in MODES:
        raise ValueError(f"--leakage {mode!r} is none of {', '.join(MODES)}")
    _load_keys(connection, evaluation_keys, mode, shipped)
    sources: dict[str, dict] = {}
    report = {"mode": mode, "license_filter": list(license_filter), "sources": sources}
    applied = [name for name in lists if mode == "strict" or name.split(":")[1] in TEST_SPLITS]
    report["lists"] = dict.fromkeys(sorted(applied), 0) | _list_sizes(connection)
    for name in dict.fromkeys(entry.name for entry in entries if entry.role == "pretrain"):
        splits = [
            e.split for e in entries if e.name == name and e.role == "pretrain" and e.weight > 0
        ]
        if not splits:
            continue
        rows = _listed_rows(connection, tables, name, splits)
        connection.execute(f"create or replace view listed as {rows}")
        refused = ", ".join(literal(x) for x in _refused_licenses(connection, license_filter))
        connection.execute(
            f"create or replace temp table refused as select unnest([{refused}]::varchar[]) as"
            " license"
        )
        _mark_leaks(connection)
        write_batches(
            output / f"{name}.parquet", caption_schema(), _kept(connection, tables, name, splits)
        )
        for source, counts in _count(connection).items():
            sources.setdefault(source, counts)
    report["total"] = _total(sources)
    return report


def _kept(connection, tables: Path, name: str, splits: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows that may stay, in the order of the table (DuckDB would give them as its threads
    finish).
    """
    leaked = _column(connection, "select distinct audio_key from leaks")
    refused = _column(connection, "select license from refused")
    for batch in pq.ParquetFile(tables / f"{name}.parquet").iter_batches(columns=list(COLUMNS)):
        dropped = pc.or_(pc.is_in(batch["audio_key"], leaked), pc.is_in(batch["license"], refused))
        if ALL_SPLITS not in splits:
            dropped = pc.or_(dropped, pc.invert(pc.is_in(batch["split"], pa.array(splits))))
        yield batch.filter(pc.invert(dropped)).cast(caption_schema())


def _column(connection, query: str) -> pa.Array:
    return pa.array([row[0] for row in connection.execute(query).fetchall()], pa.string())


def _load_keys(connection, evaluation_keys: Path, mode: str, shipped: Path | None = None) -> None:
    tests = ", ".join(literal(split) for split in sorted(TEST_SPLITS))
    where = "" if mode == "strict" else f"where split in ({tests})"
    connection.execute(
        f"""create or replace temp table evaluation as
        select distinct evaluation_set || ':' || split as list, key
        from {parquet(evaluation_keys)} {where}"""
    )
    hashes = "select null::varchar as list, null::ubigint as hash where false"
    if shipped is not None:
        tested = f"split_part(list, ':', 2) in ({tests})"
        hashes = f"select list, hash from {parquet(shipped)}"
        hashes += "" if mode == "strict" else f" where {tested}"
    connection.execute(f"create or replace temp table shipped as {hashes}")


def _list_sizes(connection) -> dict[str, int]:
    return dict(
        connection.execute(
            "select list, count(*) from evaluation group by list order by list"
        ).fetchall()
    )


def _listed_rows(connection, tables: Path, name: str, splits: Sequence[str]) -> str:
    table = tables / f"{name}.parquet"
    if not table.is_file():
        raise FileNotFoundError(f"{table} is missing; prepare the corpus {name} first")
    query = f"select * from {parquet(table)}"
    found = {
        row[0]
        for row in connection.execute(f"select distinct split from {parquet(table)}").fetchall()
    }
    absent = [split for split in splits if split != ALL_SPLITS and split not in found]
    if absent:
        raise ValueError(
            f"{table} has no row of split {absent[0]!r}; it has {', '.join(sorted(found))}"
        )
    if ALL_SPLITS in splits:
        return query
    return query + f" where split in ({', '.join(literal(split) for split in splits)})"


def _refused_licenses(connection, patterns: Sequence[str]) -> list[str]:
    licenses = [
        row[0] for row in connection.execute("select distinct license from listed").fetchall()
    ]
    return sorted(
        x for x in licenses if any(fnmatch.fnmatch(x.lower(), p.lower()) for p in patterns)
    )


def _mark_leaks(connection) -> None:
    """leaks: (audio_key, list), once per clip and list."""
    group = GROUP_SQL.format(key="audio_key")
    connection.execute(f"""create or replace temp table leaks as
        select distinct audio_key, list from (
            select audio_key, list from listed join evaluation on evaluation.key = audio_key
            union all
            select audio_key, list from listed join evaluation on evaluation.key = {group})""")
    if connection.execute("select count(*) from shipped").fetchall()[0][0]:
        for key in ("audio_key", group):
            connection.execute(f"""insert into leaks select distinct audio_key, shipped.list
                from (select distinct audio_key from listed) join shipped
                    on shipped.hash = {HASH_SQL.format(key=key)}
                where (audio_key, shipped.list) not in (select (audio_key, list) from leaks)""")


def _count(connection) -> dict[str, dict]:
    """Per source: clips and captions listed and kept, and clips dropped for each reason.

    A clip on several lists counts once for each of them, and once in the total.
    """
    connection.execute("""create or replace temp table clips as
        select source, audio_key, count(*) as captions,
            count(*) filter (license in (select license from refused)) as refused
        from listed group by source, audio_key""")
    connection.execute("""create or replace temp table verdicts as
        select *, audio_key in (select audio_key from leaks) as leaked from clips""")
    counts = {
        source: {
            "clips": clips,
            "captions": captions,
            "kept_clips": kept,
            "kept_captions": kept_captions,
            "leaked_clips": leaked,
            "refused_captions": refused,
            "by_list": {},
        }
        for source, clips, captions, kept, kept_captions, leaked, refused in connection.execute(
            """select source, count(*), sum(captions)::bigint,
                count(*) filter (not leaked and captions > refused),
                coalesce(sum(captions - refused) filter (not leaked), 0)::bigint,
                count(*) filter (leaked), sum(refused)::bigint
            from verdicts group by source order by source"""
        ).fetchall()
    }
    per_list = """select source, list, count(*) from clips join leaks using (audio_key)
        group by all order by all"""
    for source, name, clips in connection.execute(per_list).fetchall():
        counts[source]["by_list"][name] = clips
    return counts


def _total(sources: dict[str, dict]) -> dict[str, int]:
    names = ("clips", "captions", "kept_clips", "kept_captions", "leaked_clips", "refused_captions")
    return {name: sum(counts[name] for counts in sources.values()) for name in names}


def report_as_markdown(report: dict) -> str:
    """The report as a page: one line per source, and the clips dropped for each evaluation list."""
    lines = [f"# Leakage filter ({report['mode']})", ""]
    if report["license_filter"]:
        lines += [f"Licenses left out: {', '.join(report['license_filter'])}", ""]
    for name, reason in sorted(report.get("missing_lists", {}).items()):
        keys, whole = report.get("shipped_lists", {}).get(name, (0, False))
        if whole:
            what = f"Protected by the {keys:,} keys that come with the code"
        elif keys or report["lists"].get(name):
            what = "Not protected but in part"
        else:
            what = "Not protected"
        lines += [f"**{what}: {name}** ({reason})", ""]
    for name, reasons in sorted(report.get("unprotected", {}).items()):
        lines += [f"**Not protected: clips of {name}** ({reason})\n" for reason in reasons]
    for name, reason in sorted(report.get("unheard_lists", {}).items()):
        lines += [f"Its audio is not compared: {name} ({reason})", ""]
    lines += [
        "| source | clips | kept | leaked | captions | kept | refused license |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = {**report["sources"], "all": report["total"]}
    for source, c in rows.items():
        lines.append(
            f"| {source} | {c['clips']} | {c['kept_clips']} | {c['leaked_clips']} | {c['captions']}"
            f" | {c['kept_captions']} | {c['refused_captions']} |"
        )
    lines += [
        "",
        "Clips dropped, by evaluation list (a clip on several lists counts for each):",
        "",
    ]
    lines += ["| list | keys | " + " | ".join(report["sources"]) + " |"]
    lines += ["|---|---|" + "---|" * len(report["sources"])]
    for name, keys in report["lists"].items():
        dropped = [str(counts["by_list"].get(name, 0)) for counts in report["sources"].values()]
        lines.append(f"| {name} | {keys} | " + " | ".join(dropped) + " |")
    return "\n".join(lines) + "\n"


def survivors(
    connection: duckdb.DuckDBPyConnection, tables: Sequence[Path], evaluation_keys: Path, mode: str
) -> int:
    """Clips in `tables` that are on an evaluation list: 0, or the filter did not do its work."""
    _load_keys(connection, evaluation_keys, mode)
    connection.execute(f"create or replace view listed as select audio_key from {parquet(*tables)}")
    _mark_leaks(connection)
    found = connection.execute("select count(distinct audio_key) from leaks").fetchall()
    return found[0][0]
