@echo off
rem Train HRNet at 768x768 on an 8 GB RTX 3070 Ti with the plan of the shipped profile, which one trial on the card
rem proves first. Options given to this script are added and win: train_768x768_rtx3070ti.bat --epochs 100
vramfit train --profile rtx3070ti-768 --dataset_path Aariz --model hrnet --image_size 768 768 --batch_size 6 ^
  --epochs 200 --lr 3e-4 --warmup_epochs 10 --loss adaptive_wing --mixed_precision --num_workers 2 ^
  --save_dir checkpoints_768x768 --log_dir logs_768x768 %*
set code=%errorlevel%
rem A window opened by a double click would close before the message is read.
if not %code%==0 pause
exit /b %code%
