#!/usr/bin/env bash
# Questions, answers and manifests for the question-answering protocol.
#
#   ./prepare.sh                          the study's sets: ClothoAQA, MusicQA, speaker questions, AIR-Bench
#   ./prepare.sh --corpus recordings      a labelled folder of your own, or one with questions.csv
#   ./prepare.sh --corpus mini            the synthetic mini corpus
#
# Stages: 1 tables; 2 audio check and manifests. What is done is not done again.
#
# Options (default); relative paths are relative to this folder:
#   --sets "clothoaqa musicqa speakerqa airbench"
#   --corpora-dir download     has a folder of the release for every set (speakerqa: a folder per speech corpus in it)
#   --corpus ""                a folder of recordings, or mini, in the place of the sets
#   --data-dir data            receives tables/ and the manifests
#   --num-pairs 160000         speaker questions
#   --mini-clips 1500          size of the mini corpus
#   --valid-share ""           of the training clips, where no validation clips are given: 0.005; with --corpus 0, since
#                              other recipes train on the folder's training clips
#   --allow-missing false      true: evaluate without clips that cannot be read
#   --seed 42                  of speaker questions and validation clips
#   --num-jobs 2               processes that check the audio

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

stage=1
stop_stage=2
sets="clothoaqa musicqa speakerqa airbench"
corpora_dir=download
corpus=
data_dir=data
num_pairs=160000
mini_clips=1500
valid_share=
allow_missing=false
seed=42
num_jobs=2

numbers="stage stop_stage num_pairs mini_clips seed num_jobs"
shares="valid_share"
switches="allow_missing"
texts="sets corpora_dir corpus data_dir"

. "$here/shared/log.sh"
. "$here/shared/stages.sh"
. "$here/shared/one_run.sh"
. "$here/shared/parse_options.sh"
cd "$here"

programs=../../local
if [ -z "$valid_share" ]; then if [ -n "$corpus" ]; then valid_share=0; else valid_share=0.005; fi; fi
take_lock "$data_dir/.lock" true
done_dir=$data_dir/.done

make_tables() {
  local set arguments
  if [ -n "$corpus" ]; then
    python "$programs/prepare_corpus.py" ownqa --corpus-dir "$corpus" --output-dir "$data_dir/tables" --seed "$seed"
    return
  fi
  for set in $sets; do
    arguments=(--corpus-dir "$corpora_dir/$set" --output-dir "$data_dir/tables")
    case "$set" in
      airbench) arguments+=(--audio-dir "$corpora_dir/$set") ;;
      speakerqa) arguments+=(--num-pairs "$num_pairs" --seed "$seed") ;;
    esac
    python "$programs/prepare_corpus.py" "$set" "${arguments[@]}" || return
  done
}

make_manifests() {
  local tables=() set
  if [ -n "$corpus" ]; then tables=("$data_dir/tables/ownqa.parquet"); else
    for set in $sets; do tables+=("$data_dir/tables/$set.parquet"); done
  fi
  ./local/make_question_manifests.py --tables "${tables[@]}" --output-dir "$data_dir" --valid-share "$valid_share" \
    --seed "$seed" --num-jobs "$num_jobs" --allow-missing "$allow_missing"
}

if [ "$corpus" = mini ]; then
  # The corpus itself is part of the data, so that the folder can be moved as a whole.
  if in_stage 1 "Mini corpus"; then
    run_unless_done "$done_dir/1-corpus" "$(fingerprint_of "$mini_clips")" \
      python "$programs/split_mini.py" --output-dir "$data_dir/mini" --num-clips "$mini_clips" --num-jobs "$num_jobs"
  fi
  corpus=$data_dir/mini/corpus
fi

tables=$(fingerprint_of "$sets" "$corpora_dir" "$corpus" "$num_pairs" "$mini_clips" "$seed")
manifests=$(fingerprint_of "$tables" "$valid_share" "$allow_missing")

if in_stage 1 "Tables of questions"; then
  run_unless_done "$done_dir/1-tables" "$tables" make_tables
fi

if in_stage 2 "Audio check and manifests"; then
  run_unless_done "$done_dir/2-manifests" "$manifests" make_manifests
fi

log "done; train with --manifest-dir $data_dir"
