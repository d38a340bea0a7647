#!/usr/bin/env bash
# Manifests for linear probing: of the seven tasks, from their released files, or of a folder of labelled recordings.
#
#   ./prepare.sh --tasks fsd50k,nsynth --corpora-dir download          some tasks
#   ./prepare.sh --corpora-dir download --stage 2 --num-jobs 16        all, from the audio check on
#   ./prepare.sh --corpus recordings --data-dir data/recordings        a folder of your own
#
# Stages, each for all tasks: 1 classes, labels and splits, so that a missing list shows before hours of decoding;
# 2 audio check and manifests; 3 the table of what was found, <data-dir>/coverage.md. A stage that is done is skipped; a
# killed one runs again, goes on with the audio check where it was, and gives the same manifests.
#
# Options (default); relative paths are relative to where you are:
#   --tasks all                comma-separated: fsd50k, vggsound, voxceleb2, cremad, magnatagatune, nsynth, audioset_strong
#   --corpora-dir download     has a folder <task> for every task (VoxCeleb2: voxceleb)
#   --audio-dir ""             has the audio as <task>/... (voxceleb/...); by default it lies in the corpora's folders
#   --split public             of CREMA-D, VoxCeleb2 and MagnaTagATune, whose split in the paper is not the public one; paper:
#                              a random one of its sizes (its clips are not published). Every result says which
#   --data-dir data            receives <task>/cuts_train.jsonl, cuts_valid.jsonl, cuts_test.jsonl, broken_test.jsonl, ...
#   --corpus ""                instead of tasks: a folder with captions.csv and metadata.csv (file,label,fold,...), or a folder
#                              of such folders; the manifests go to <data-dir> itself
#   --num-jobs 2               processes, or workers of a local Dask cluster
#   --dask-scheduler ""        tcp://... of a running Dask cluster, or local

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
programs=$here/../../local

stage=1
stop_stage=3
tasks=all
corpora_dir=download
audio_dir=
split=public
data_dir=data
corpus=
num_jobs=2
dask_scheduler=

numbers="stage stop_stage num_jobs"
texts="tasks corpora_dir audio_dir split data_dir corpus dask_scheduler"

. "$here/shared/log.sh"
. "$here/shared/stages.sh"
. "$here/shared/one_run.sh"
. "$here/shared/parse_options.sh"

if [ "$split" != public ] && [ "$split" != paper ]; then option_error "--split is public or paper, not $split"; fi
known="fsd50k vggsound voxceleb2 cremad magnatagatune nsynth audioset_strong"
if [ "$tasks" = all ]; then chosen=$known; else chosen=${tasks//,/ }; fi
for task in $chosen; do
  case " $known " in
    *" $task "*) ;;
    *) option_error "--tasks: $task is none of $known" ;;
  esac
done
take_lock "$data_dir/.lock" true
done_dir=$data_dir/.done

# prepare_task TASK FLAG...: its reader
prepare_task() {
  local task=$1 folder=$1
  shift
  if [ "$task" = voxceleb2 ]; then folder=voxceleb; fi
  local arguments=(--corpus-dir "$corpora_dir/$folder" --output-dir "$data_dir/$task" --num-jobs "$num_jobs")
  if [ -n "$audio_dir" ]; then arguments+=(--audio-dir "$audio_dir/$folder"); fi
  if [ -n "$dask_scheduler" ]; then arguments+=(--dask-scheduler "$dask_scheduler"); fi
  case "$task" in cremad | voxceleb2 | magnatagatune) arguments+=(--split "$split") ;; esac
  python "$programs/prepare_corpus.py" "$task" "${arguments[@]}" "$@"
}

if [ -n "$corpus" ]; then
  log "Manifests of $corpus"
  python "$programs/split_folder.py" --corpus-dir "$corpus" --output-dir "$data_dir" --num-jobs "$num_jobs"
  exit
fi

fingerprint=$(fingerprint_of "$corpora_dir" "$audio_dir" "$split")

if in_stage 1 "Classes, labels and splits"; then
  for task in $chosen; do
    run_unless_done "$done_dir/$task/1-lists" "$fingerprint" prepare_task "$task" --lists-only
  done
fi

if in_stage 2 "Audio check and manifests"; then
  for task in $chosen; do
    run_unless_done "$done_dir/$task/2-manifests" "$fingerprint" prepare_task "$task"
  done
fi

if in_stage 3 "Coverage"; then
  python "$here/local/summarise.py" --data-dir "$data_dir"
fi
