#!/usr/bin/env bash
# The main job: environment, data, contrastive pretraining, evaluation of the frozen encoder, report.
#
#   ./run.sh                            the mini corpus, 10 minutes on two cores
#   ./run.sh --corpus DIR               your recordings: audio files, captions.csv and, for labels, metadata.csv;
#                                       or a folder of such folders
#   ./run.sh --stage 3                  from the evaluation on
#   ./run.sh --study mini               the whole comparison of the paper in small: every system, size and protocol
#                                       (mini, paper, or a plan of your own: see egs/study/README.md)
#
# Stages: 1 data; 2 pretraining; 3 evaluation; 4 report. A killed run continues where it was.
#
# Options (default):
#   --corpus ""                folder with recordings; empty: the mini corpus
#   --exp-dir ""               results; exp for the mini corpus, exp/<name of the folder> for others
#   --data-dir ""              manifests; data/mini or data/<name of the folder>
#   --valid-folds ""           folds of metadata.csv to validate on, with blanks between (the second highest)
#   --test-folds ""            folds to test on (the highest)
#   --vocab-size 2000          pieces of the tokenizer
#   --character-coverage 0.9995  share of the captions' characters that the tokenizer keeps
#   --tasks all                probes: comma-separated <source>[:<field>], or all labelled sources
#   --encoder-preset mini      size of the encoder
#   --text-tower tiny          size of the text encoder
#   --num-epochs ""            epochs of pretraining; 24 for the mini corpus, 90 for others
#   --avg ""                   epochs to average the weights over; a sixth of --num-epochs
#   --max-duration 100         seconds of audio per batch
#   --duplicate-captions ""    strict or match; what counts as found in retrieval (match for folders of recordings)
#   --num-jobs 2               processes for preparation
#   --num-workers 2            processes for loading
#   --seed 42
#   --study ""                 a plan; the options above then come from the plan
#   --dry-run false            with --study: print the commands that are missing, run nothing

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
caller=$PWD

stage=1
stop_stage=4
corpus=
exp_dir=
data_dir=
valid_folds=
test_folds=
vocab_size=2000
character_coverage=0.9995
tasks=all
encoder_preset=mini
text_tower=tiny
num_epochs=
avg=
max_duration=100
duplicate_captions=
num_jobs=2
num_workers=2
seed=42
study=
dry_run=false

numbers="stage stop_stage vocab_size num_epochs avg max_duration num_jobs num_workers seed"
shares="character_coverage"
switches="dry_run"
texts="corpus exp_dir data_dir valid_folds test_folds tasks encoder_preset text_tower duplicate_captions study"

. "$root/shared/log.sh"
. "$root/shared/stages.sh"
. "$root/shared/one_run.sh"
. "$root/shared/parse_options.sh"
. "$root/shared/environment.sh"

# absolute PATH: as the caller meant it, whatever folder this program runs in.
absolute() {
  case "$1" in
    /*) printf '%s' "$1" ;;
    *) printf '%s/%s' "$caller" "$1" ;;
  esac
}

if [ -z "$study" ] && [ "$dry_run" = true ]; then option_error "--dry-run is for --study"; fi
if [ -n "$study" ]; then
  for other in $given_options; do
    case "$other" in
      study | dry_run) ;;
      *) option_error "--study takes its settings from the plan, not from --${other//_/-}; egs/study/run.py --set changes them" ;;
    esac
  done
  ensure_environment "$root"
  if [ -f "$(absolute "$study")" ]; then study=$(absolute "$study"); fi
  # glibc would give the memory of every step back to the kernel and ask for it again.
  export MALLOC_MMAP_THRESHOLD_=10000000000 MALLOC_TRIM_THRESHOLD_=20000000000 MALLOC_TOP_PAD_=500000000
  exec "$root/egs/study/run.py" --plan "$study" --dry-run "$dry_run"
fi
if [ -n "$corpus" ]; then
  if [ ! -d "$corpus" ]; then option_error "--corpus $corpus is not a folder"; fi
  corpus=$(cd "$corpus" && pwd)
  name=$(basename "$corpus")
  ref_duration=4
  lr_batches=200
  valid_interval=250
  exp_dir=$(absolute "${exp_dir:-$root/exp/$name}")
  num_epochs=${num_epochs:-90}
else
  name=mini
  ref_duration=2
  lr_batches=100
  valid_interval=100
  exp_dir=$(absolute "${exp_dir:-$root/exp}")
  num_epochs=${num_epochs:-24}
fi
save_every_epochs=${avg:-$(((num_epochs + 5) / 6))} # the last of these intervals is what gets averaged
data_dir=$(absolute "${data_dir:-$root/data/$name}")
duplicate_captions=${duplicate_captions:-match}

take_lock "$exp_dir/.lock" false
ensure_environment "$root"
cd "$root"
# glibc would give the memory of every step back to the kernel and ask for it again, a fifth of a small model's time.
export MALLOC_MMAP_THRESHOLD_=10000000000 MALLOC_TRIM_THRESHOLD_=20000000000 MALLOC_TOP_PAD_=500000000
run_dir=$exp_dir/contrastive

# probe_system NAME ENCODER POOLING: every probe twice, validation and test exchanged, and the test clips of both joined.
probe_system() {
  local probe_dir=$exp_dir/probe/$1 exchanged
  for exchanged in "" /swapped; do
    egs/eval_probe/train.py --encoder "$2" --pooling "$3" --tasks "$tasks" --manifest-dir "$data_dir$exchanged" \
      --exp-dir "$probe_dir$exchanged" --cache-dir "$exp_dir/embeddings" --num-workers "$num_workers"
  done
  if compgen -G "$probe_dir/probe-*.pt" > /dev/null; then # a corpus without labels has none
    egs/eval_probe/decode.py --exp-dir "$probe_dir" --also "$probe_dir/swapped" --system "$1" --num-workers "$num_workers"
  fi
}

if in_stage 1 "Data"; then
  folds=()
  if [ -n "$valid_folds" ]; then folds+=(--valid-folds "$valid_folds"); fi
  if [ -n "$test_folds" ]; then folds+=(--test-folds "$test_folds"); fi
  ./prepare.sh --corpus "$corpus" --data-dir "$data_dir" --num-jobs "$num_jobs" --seed "$seed" \
    --vocab-size "$vocab_size" --character-coverage "$character_coverage" "${folds[@]}"
fi

# What the corpus is too small for is said before anything is trained.
counts=$(python local/count_clips.py --manifest-dir "$data_dir")
read -r train_clips valid_clips test_clips train_seconds <<< "$counts"
log "$train_clips clips to train on, $valid_clips to validate, $test_clips to test"
if [ "$test_clips" = 0 ]; then log "no test clip: retrieval, probes and the report are left out"; fi
if [ "$valid_clips" = 0 ]; then log "no validation clip: training is not validated, probes are left out"; fi
interval_steps=$(((train_seconds + max_duration - 1) / max_duration * save_every_epochs))
average_period=10
if [ "$interval_steps" -lt $((2 * average_period)) ]; then
  average_period=1
  log "about $interval_steps steps in $save_every_epochs epochs: the weights are averaged at every step"
fi

if in_stage 2 "Contrastive pretraining"; then
  egs/captionstew/contrastive/train.py \
    --manifest-dir "$data_dir" --tokenizer "$data_dir/bpe.model" --feature-store "$data_dir/features/current" \
    --exp-dir "$run_dir" --resume true --num-workers "$num_workers" --seed "$seed" \
    --encoder-preset "$encoder_preset" --text-tower "$text_tower" --embedding-dim 256 \
    --num-epochs "$num_epochs" --max-duration "$max_duration" --ref-duration "$ref_duration" \
    --lr-batches "$lr_batches" --lr-epochs 1000 --warm-step 100 --average-period "$average_period" \
    --spec-aug-time-warp 0 --augment-max-seconds 2 --augment-gain-db 6 \
    --log-interval 20 --valid-interval "$valid_interval" --save-every-n 100 --keep-last-k 2 --save-every-epochs "$save_every_epochs" \
    --duplicate-captions "$duplicate_captions"
  egs/captionstew/local/average_checkpoints.py --exp-dir "$run_dir" --epoch "$num_epochs" \
    --avg "$save_every_epochs" --output "$run_dir/pretrained.pt"
fi

if in_stage 3 "Evaluation of the frozen encoder" && [ "$test_clips" -gt 0 ]; then
  egs/captionstew/contrastive/decode.py --exp-dir "$run_dir" --checkpoint "$run_dir/pretrained.pt" \
    --manifest "$data_dir/cuts_test.jsonl" --duplicate-captions "$duplicate_captions" --num-workers "$num_workers"
fi

if in_stage 3 "Probes" && [ "$valid_clips" -gt 0 ] && [ "$test_clips" -gt 0 ]; then
  python local/swap_held_out.py --manifest-dir "$data_dir" --output-dir "$data_dir/swapped"
  probe_system contrastive "$run_dir/pretrained.pt" mean
  probe_system random "random:$run_dir/pretrained.pt" mean
  probe_system logmel logmel mean_std
fi

if in_stage 4 "Report" && [ "$test_clips" -gt 0 ]; then
  python -m captionstew.evaluation.report --exp-dir "$exp_dir"
fi
