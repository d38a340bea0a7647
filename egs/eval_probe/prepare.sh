#!/usr/bin/env bash
# Manifests for linear probing on a folder of labelled recordings.
#
#   ./prepare.sh --corpus recordings --data-dir data/recordings
#
# Options (default):
#   --corpus ""                folder with captions.csv and metadata.csv (file,label,fold,...), or a folder of such folders
#   --data-dir data            receives cuts_train.jsonl, cuts_valid.jsonl, cuts_test.jsonl
#   --num-jobs 2               processes

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

stage=1
stop_stage=1
corpus=
data_dir=data
num_jobs=2

. "$root/shared/log.sh"
. "$root/shared/parse_options.sh"

if [ -z "$corpus" ]; then option_error "--corpus is needed"; fi
if in_stage 1 "Manifests of $corpus"; then
  python "$root/local/split_folder.py" --corpus-dir "$corpus" --output-dir "$data_dir" --num-jobs "$num_jobs"
fi
