#!/usr/bin/env bash
# Environment and data, by stages: what run.sh needs before it trains.
#
#   ./prepare.sh                                 the mini corpus
#   ./prepare.sh --corpus DIR                    a folder of recordings (see run.sh --help)
#   ./prepare.sh --stage 2 --stop-stage 2        the tokenizer alone
#
# The eight corpora of CaptionStew have their own program: egs/captionstew/prepare.sh.
#
# Stages: 1 manifests (train, valid, test); 2 tokenizer; 3 features. What is done is not done again.
#
# Options (default):
#   --corpus ""                folder with recordings; empty: the mini corpus
#   --data-dir ""              where manifests go; data/mini or data/<name of the folder>
#   --valid-folds ""           folds of metadata.csv to validate on, with blanks between (the second highest)
#   --test-folds ""            folds to test on (the highest)
#   --vocab-size 2000          pieces of the tokenizer
#   --character-coverage 0.9995  share of the captions' characters that the tokenizer keeps
#   --num-jobs 2               processes
#   --seed 42

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
caller=$PWD

stage=1
stop_stage=3
corpus=
data_dir=
valid_folds=
test_folds=
vocab_size=2000
character_coverage=0.9995
num_jobs=2
seed=42

numbers="stage stop_stage vocab_size num_jobs seed"
shares="character_coverage"
switches=""
texts="corpus data_dir valid_folds test_folds"

. "$root/shared/log.sh"
. "$root/shared/stages.sh"
. "$root/shared/one_run.sh"
. "$root/shared/parse_options.sh"
. "$root/shared/environment.sh"

if [ -n "$corpus" ]; then
  if [ ! -d "$corpus" ]; then option_error "--corpus $corpus is not a folder"; fi
  corpus=$(cd "$corpus" && pwd)
  data_dir=${data_dir:-$root/data/$(basename "$corpus")}
fi
data_dir=${data_dir:-$root/data/mini}
take_lock "$data_dir/.lock" true
data_dir=$(cd "$data_dir" && pwd)
ensure_environment "$root"
cd "$root"
done_dir=$data_dir/.done
if [ -z "$corpus" ] && [ -n "$valid_folds$test_folds" ]; then option_error "--valid-folds and --test-folds are for --corpus"; fi

make_manifests() {
  if [ -n "$corpus" ]; then
    local folds=() valid test
    read -ra valid <<< "$valid_folds"
    read -ra test <<< "$test_folds"
    if [ -n "$valid_folds" ]; then folds+=(--valid-folds "${valid[@]}"); fi
    if [ -n "$test_folds" ]; then folds+=(--test-folds "${test[@]}"); fi
    python local/split_folder.py --corpus-dir "$corpus" --output-dir "$data_dir" --num-jobs "$num_jobs" "${folds[@]}"
  else
    python local/split_mini.py --output-dir "$data_dir" --seed "$seed" --num-jobs "$num_jobs"
  fi
}

# These two programs see for themselves what is done, and what in the corpus has changed since.
if in_stage 1 "Manifests of ${corpus:-the mini corpus}"; then
  make_manifests
fi
manifests=$(fingerprint_of "@$data_dir/cuts_train.jsonl")

if in_stage 2 "Tokenizer"; then
  run_unless_done "$done_dir/2-tokenizer" "$(fingerprint_of "$manifests" "$vocab_size" "$character_coverage")" \
    python local/train_bpe.py --manifest "$data_dir/cuts_train.jsonl" --output "$data_dir/bpe.model" --vocab-size "$vocab_size" \
    --character-coverage "$character_coverage"
fi

if in_stage 3 "Features"; then
  run_unless_done "$done_dir/3-features" "$manifests" \
    python local/store_features.py --manifest "$data_dir/cuts_train.jsonl" --output-dir "$data_dir/features" --num-jobs "$num_jobs"
fi
