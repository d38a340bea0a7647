#!/usr/bin/env bash
# Prepare the corpus: from the released files to training manifests.
#
#   ./prepare.sh --corpora-dir download                          everything
#   ./prepare.sh --corpora-dir download --stage 4 --num-jobs 16  from the audio check on
#
# Stages: 0 fetching, only with --stage 0 --fetch ...; 1 caption tables and evaluation lists; 2 leakage filter; 3 consolidation and duration rule;
# 4 audio check; 5 manifests of the subsets; 6 features (only with --features true; training takes the folder that it
# names with --feature-store); 7 statistics.
# A stage that is done is skipped; a killed one runs again and gives the same files. What changed is noticed: after adding
# audio or replacing a release, run the same command again. Files that were checked before are not decoded again.
#
# Options (default); relative paths are relative to this folder:
#   --corpora corpora.csv      the list of corpora: name, split, role, weight
#   --corpora-dir download     has a folder <name> for every corpus of the list
#   --audio-dir ""             has the audio as <name>/...; by default it lies in <corpora-dir>/<name>/audio
#   --fetch ""                 stage 0: metadata, audio or all, of the corpora on the list, into --corpora-dir; nothing
#                              else here reaches the network. What no script can fetch is said, step by step
#   --limit ""                 stage 0: so many files of every source, for a trial
#   --data-dir data            receives everything
#   --audiocaps-version 1      or 2: the captions of dataset2.0/; evaluation lists of every version that is there protect
#   --leakage strict           or test-only: drop what test splits use, keep what development splits use
#   --allow-missing-lists false  true: go on without evaluation lists that are not there or not whole, and with
#                              Clotho clips without a Freesound id; leakage.md says which
#   --max-dropped-share 0.01   of the rows of a release's file that may be unusable or there twice; more stop stage 1
#   --license-filter ""        shell patterns of licenses to leave out, e.g. "*-NC-*,*academic*"
#   --max-duration 60          seconds
#   --subsets "400k 1M 4M all" numbers of captions
#   --valid-share 0.005        share of the recordings to validate on
#   --seed 42                  of subsets and validation
#   --num-jobs 2               processes, or workers of a local Dask cluster
#   --dask-scheduler ""        tcp://... of a running Dask cluster, or local
#   --mini-clips 1500          size of the mini corpus, if it is on the list and not there yet
#   --features false           true: precompute features of the last subset
#   --sentence-model ""        name or folder of a sentence-transformers model for the figure (default: TF-IDF)
#   --reference-texts ""       text files, one sentence a line, to compare the captions' diversity with
#   --memory-gb 2              limit of the database

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

first_stage=0
stage=1
stop_stage=7
corpora=corpora.csv
corpora_dir=download
audio_dir=
fetch=
limit=
audiocaps_version=1
data_dir=data
leakage=strict
allow_missing_lists=false
max_dropped_share=0.01
license_filter=
max_duration=60
subsets="400k 1M 4M all"
valid_share=0.005
seed=42
num_jobs=2
dask_scheduler=
mini_clips=1500
features=false
sentence_model=
reference_texts=
memory_gb=2

numbers="stage stop_stage limit audiocaps_version seed num_jobs mini_clips"
shares="max_dropped_share max_duration valid_share memory_gb"
switches="allow_missing_lists features"
texts="corpora corpora_dir audio_dir fetch data_dir leakage license_filter subsets dask_scheduler sentence_model reference_texts"

. "$here/shared/log.sh"
. "$here/shared/stages.sh"
. "$here/shared/one_run.sh"
. "$here/shared/parse_options.sh"
cd "$here"

if [ ! -f "$corpora" ]; then option_error "--corpora $corpora: no such list of corpora; relative to $here"; fi
# What the last stage needs is asked for before hours of the first ones.
read -ra texts_asked <<< "$reference_texts"
for text in ${texts_asked[@]+"${texts_asked[@]}"}; do
  if [ ! -f "$text" ]; then option_error "--reference-texts: $text is not there"; fi
done
if [ -n "$sentence_model" ] && ! python -c "import sentence_transformers" 2> /dev/null; then
  option_error "--sentence-model needs pip install sentence-transformers; without the option the figure uses TF-IDF"
fi
take_lock "$data_dir/.lock" true
done_dir=$data_dir/.done
programs=../../local
known_corpora=$(python "$programs/prepare_corpus.py" --list | tr '\n' ' ')

prepare_corpus() {
  local name=$1
  shift
  local reader=$name
  case " $known_corpora " in
    *" $name "*) ;;
    *) reader=own ;;
  esac
  local arguments=(--corpus-dir "$corpora_dir/$name" --output-dir "$data_dir/tables")
  arguments+=(--max-dropped-share "$max_dropped_share")
  if [ -n "$audio_dir" ]; then arguments+=(--audio-dir "$audio_dir/$name"); fi
  if [ "$name" = audiocaps ]; then arguments+=(--version "$audiocaps_version"); fi
  if [ "$name" = clotho ] && [ "$allow_missing_lists" = true ]; then arguments+=(--allow-missing-ids); fi
  if [ "$name" = mini ]; then arguments+=(--num-clips "$mini_clips"); fi
  if [ $# -gt 0 ]; then arguments+=(--splits "$@"); fi
  python "$programs/prepare_corpus.py" "$reader" "${arguments[@]}"
}

gather_evaluation_lists() {
  local sets
  sets=$(./local/list_corpora.py "$corpora" evaluation --pairs) || return
  read -rd '' -a sets <<< "$sets" || true
  local arguments=(--corpora-dir "$corpora_dir" --output-dir "$data_dir")
  if [ -n "$audio_dir" ]; then arguments+=(--audio-dir "$audio_dir"); fi
  if [ "$allow_missing_lists" = true ]; then arguments+=(--allow-missing); fi
  ./local/gather_evaluation_keys.py "${arguments[@]}" --sets "${sets[@]}"
}

check_audio() {
  local arguments=(--data-dir "$data_dir" --max-duration "$max_duration" --num-jobs "$num_jobs" --leakage "$leakage")
  if [ -n "$dask_scheduler" ]; then arguments+=(--dask-scheduler "$dask_scheduler"); fi
  ./local/check_audio.py "${arguments[@]}"
}

compute_features() {
  local arguments=(--manifest "$data_dir/${subsets##* }/cuts_train.jsonl" --output-dir "$data_dir/features")
  if [ -n "$dask_scheduler" ]; then arguments+=(--dask-scheduler "$dask_scheduler"); fi
  ./local/compute_features.py "${arguments[@]}" --num-jobs "$num_jobs"
}

analyse() {
  local arguments=(--data-dir "$data_dir" --seed "$seed")
  if [ -n "$sentence_model" ]; then arguments+=(--sentence-model "$sentence_model"); fi
  local texts
  read -ra texts <<< "$reference_texts"
  if [ -n "$reference_texts" ]; then arguments+=(--reference-texts "${texts[@]}"); fi
  ./local/analyse.py "${arguments[@]}"
}

fetch_releases() {
  local arguments=(--corpora "$corpora" --corpora-dir "$corpora_dir" --fetch "$fetch")
  if [ -n "$limit" ]; then arguments+=(--limit "$limit"); fi
  ./local/fetch.py "${arguments[@]}"
}

if in_stage 0 "Fetching (only with --fetch)" && [ -n "$fetch" ]; then
  fetch_releases
elif [ -n "$fetch" ]; then
  option_error "--fetch $fetch: has no effect without --stage 0"
fi
if [ "$stop_stage" = 0 ]; then exit 0; fi

# contents_of NAME: what the table of a corpus depends on.
contents_of() {
  printf '%s\n' "$contents" | awk -v name="$1" '$1 == name { print $2 }'
}

# Each fingerprint holds the one before it, so a change of settings repeats its stage and all that follow.
trained=$(./local/list_corpora.py "$corpora" pretrain | cut -d ' ' -f 1)
evaluated=$(./local/list_corpora.py "$corpora" evaluation | cut -d ' ' -f 1)
listing=(--corpora-dir "$corpora_dir")
if [ -n "$audio_dir" ]; then listing+=(--audio-dir "$audio_dir"); fi
# shellcheck disable=SC2086  # one word per corpus; the lists of AudioSet give starts even if nothing is evaluated on them
contents=$(./local/list_contents.py "${listing[@]}" $trained $evaluated audioset audioset_strong)
read_with=$(fingerprint_of "$corpora_dir" "$audio_dir" "$audiocaps_version" "$allow_missing_lists" "$max_dropped_share")
tables=$(fingerprint_of "@$corpora" "$read_with" "$(printf '%s\n' "$contents" | cut -d ' ' -f 1-2)")
filtered=$(fingerprint_of "$tables" "$leakage" "$license_filter")
consolidated=$(fingerprint_of "$filtered" "$max_duration")
checked=$(fingerprint_of "$consolidated" "$contents")
manifests=$(fingerprint_of "$checked" "$subsets" "$valid_share" "$seed")
analysed=$(fingerprint_of "$manifests" "$sentence_model" "$reference_texts")

if in_stage 1 "Caption tables and evaluation lists"; then
  while read -r name splits; do
    read -ra words <<< "$splits"
    run_unless_done "$done_dir/1-tables-$name" "$(fingerprint_of "$read_with" "$name $splits" "$(contents_of "$name")")" \
      prepare_corpus "$name" ${words[@]+"${words[@]}"} < /dev/null
  done < <(./local/list_corpora.py "$corpora" pretrain)
  run_unless_done "$done_dir/1-evaluation-lists" "$tables" gather_evaluation_lists
fi

if in_stage 2 "Leakage filter ($leakage)"; then
  run_unless_done "$done_dir/2-filter" "$filtered" ./local/filter_leakage.py --corpora "$corpora" \
    --data-dir "$data_dir" --leakage "$leakage" --license-filter "$license_filter" --memory-gb "$memory_gb"
fi

if in_stage 3 "Consolidation and duration rule"; then
  run_unless_done "$done_dir/3-consolidation" "$consolidated" ./local/consolidate.py --data-dir "$data_dir" \
    --max-duration "$max_duration" --memory-gb "$memory_gb"
fi

if in_stage 4 "Audio check"; then
  run_unless_done "$done_dir/4-audio-check" "$checked" check_audio
fi

if in_stage 5 "Manifests of the subsets $subsets"; then
  read -ra words <<< "$subsets"
  run_unless_done "$done_dir/5-manifests" "$manifests" ./local/make_subset_manifests.py --corpora "$corpora" \
    --data-dir "$data_dir" --valid-share "$valid_share" --seed "$seed" --subsets "${words[@]}"
fi

if in_stage 6 "Features (only with --features true)" && [ "$features" = true ]; then
  run_unless_done "$done_dir/6-features" "$(fingerprint_of "$manifests" features)" compute_features
fi

if in_stage 7 "Statistics"; then
  run_unless_done "$done_dir/7-statistics" "$analysed" analyse
fi

log "done; train with --manifest-dir $data_dir/${subsets##* }"
