"""The report of an experiment folder, from its result files, curves and examples alone.

    python -m captionstew.evaluation.report --exp-dir exp

writes <exp-dir>/report/report.md (tables: everything measured, and Tables 1 to 10 of the paper
beside ours), its figures, and index.html: the same as one page to open in a browser, with clips to
listen to.
"""

import argparse
from pathlib import Path

from captionstew.errors import run_main
from captionstew.evaluation.report.build import write_report
from captionstew.evaluation.report.measured import measured_tables
from captionstew.evaluation.report.tables import as_markdown
from captionstew.evaluation.results import read_results


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--exp-dir", type=Path, required=True, help="folder whose result files are gathered"
    )
    parser.add_argument(
        "--analysis",
        type=Path,
        help="folder with the analysis of the corpus (default: <exp-dir>/analysis, if there)",
    )
    args = parser.parse_args()
    path = write_report(args.exp_dir, args.analysis)
    print("\n\n".join(map(as_markdown, measured_tables(read_results(args.exp_dir)))))
    print(f"\nwrote {path}\nwrote {path.with_name('index.html')}: open it in a browser")


if __name__ == "__main__":
    run_main(main)
