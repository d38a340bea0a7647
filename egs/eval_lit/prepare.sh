#!/usr/bin/env bash
# Manifests for the alignment protocol: cuts_train.jsonl, cuts_valid.jsonl, cuts_test.jsonl.
#
#   ./prepare.sh --corpus musiccaps --corpus-dir download/musiccaps      audiocaps, paraspeechcaps or musiccaps
#   ./prepare.sh --corpus recordings                                     any folder with captions.csv
#
# Stages: 1 caption table; 2 train, validation and test clips; 3 audio check and manifests. A folder of recordings has
# one stage. What is done is not done again.
#
# Options (default):
#   --corpus ""                audiocaps, paraspeechcaps, musiccaps, or a folder of recordings
#   --corpus-dir ""            the release's text files; default download/<corpus>
#   --audio-dir ""             its audio; default <corpus-dir>/audio
#   --data-dir ""              receives the manifests; default data/<corpus>
#   --seed 42                  of the 500 test clips that the paper does not name
#   --num-jobs 2               processes that check the audio

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

stage=1
stop_stage=3
corpus=
corpus_dir=
audio_dir=
data_dir=
seed=42
num_jobs=2

numbers="stage stop_stage seed num_jobs"
texts="corpus corpus_dir audio_dir data_dir"

. "$here/shared/log.sh"
. "$here/shared/stages.sh"
. "$here/shared/one_run.sh"
. "$here/shared/parse_options.sh"

programs=$here/../../local
case "$corpus" in
  "") option_error "--corpus is needed" ;;
  audiocaps) splits="train val test" ;;
  paraspeechcaps) splits="train_base dev holdout" ;;
  musiccaps) splits="train eval" ;;
  *)
    if [ ! -d "$corpus" ]; then
      option_error "--corpus $corpus is neither audiocaps, paraspeechcaps, musiccaps nor a folder of recordings"
    fi
    data_dir=${data_dir:-data/$(basename "$(cd "$corpus" && pwd)")}
    take_lock "$data_dir/.lock" true
    if in_stage 1 "Manifests of $corpus"; then
      python "$programs/split_folder.py" --corpus-dir "$corpus" --num-jobs "$num_jobs" \
        --output-dir "$data_dir"
    fi
    exit
    ;;
esac
corpus_dir=${corpus_dir:-download/$corpus}
audio_dir=${audio_dir:-$corpus_dir/audio}
data_dir=${data_dir:-data/$corpus}
take_lock "$data_dir/.lock" true
done_dir=$data_dir/.done

table=$(fingerprint_of "$corpus" "$corpus_dir" "$audio_dir")
parts=$(fingerprint_of "$table" "$seed")

if in_stage 1 "Caption table of $corpus"; then
  # shellcheck disable=SC2086  # one word per split
  run_unless_done "$done_dir/1-table" "$table" python "$programs/prepare_corpus.py" "$corpus" --corpus-dir "$corpus_dir" \
    --audio-dir "$audio_dir" --output-dir "$data_dir/tables" --splits $splits
fi

if in_stage 2 "Train, validation and test clips"; then
  run_unless_done "$done_dir/2-splits" "$parts" "$here/local/choose_splits.py" --corpus "$corpus" --seed "$seed" \
    --table "$data_dir/tables/$corpus.parquet" --output-dir "$data_dir/tables"
fi

if in_stage 3 "Audio check and manifests"; then
  run_unless_done "$done_dir/3-manifests" "$(fingerprint_of "$parts" audio)" "$here/local/make_split_manifests.py" \
    --data-dir "$data_dir" --num-jobs "$num_jobs"
fi
