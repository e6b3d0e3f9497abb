#!/bin/sh
# Train HRNet at 768x768 on an 8 GB RTX 3070 Ti with the plan of the shipped profile, which one trial on the card proves
# first. Options given to this script are added and win: ./train_768x768_rtx3070ti.sh --epochs 100
# A step takes 6 images, at once where nothing else is on the card: they are predicted to take 7.7 of 7.78 GiB at most.
# With a desktop there (some 0.6 GiB) 5 fit; the trial tells, and a step takes its 6 in two micro-batches of 3.
# It works from the folder above its own, with the environment .venv or venv there, and the film set Aariz there.
cd "$(dirname "$0")/.." || exit 1
for environment in venv .venv; do
  if [ -f "$environment/bin/activate" ]; then . "$environment/bin/activate"; fi
done
exec vramfit train --profile rtx3070ti-768 --dataset_path Aariz --model hrnet --image_size 768 768 --batch_size 6 \
  --epochs 200 --lr 3e-4 --warmup_epochs 10 --loss adaptive_wing --mixed_precision --num_workers 2 \
  --save_dir checkpoints_768x768 --log_dir logs_768x768 "$@"
